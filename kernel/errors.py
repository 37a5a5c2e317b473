"""What the kernel raises. Each class is one that a caller treats differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernel.findings import Finding
    from kernel.verdict import Code


class KernelError(Exception):
    """The root of everything that the kernel raises."""


class NonCanonical(KernelError):
    """A request names its destination in a form that has no single reading."""

    def __init__(self, code: Code, problem: str) -> None:
        self.code, self.problem = code, problem
        super().__init__(f"{code}: {problem}")


class PatternError(KernelError):
    """A host, path or address pattern that a policy may not contain."""

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem, self.hint = problem, hint
        super().__init__(f"{problem} ({hint})" if hint else problem)


class PolicyError(KernelError):
    """A policy that does not load; `findings` says where and why, errors first."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(str(finding) for finding in self.findings))


class CanonicalError(KernelError):
    """A value that has no canonical form, or bytes that are not in it."""


class ChainError(KernelError):
    """A log line that does not follow from the one before it."""


class NoteError(KernelError):
    """A signed note, checkpoint or verifier key that cannot be read or does not verify."""


class UnknownSigner(NoteError):
    """A note that none of the known keys signed; whoever did may be right, and is not known here."""


class SnapshotError(KernelError):
    """A file that is not exactly what the state of a lane is written as."""


class TrustError(KernelError):
    """trust.json, minimum.json or a root key's name that cannot be read."""


class WitnessError(KernelError):
    """A line of an exported copy of the log that tells of no entry."""


class ProofError(KernelError):
    """A proof of inclusion or consistency, or what carries one, that cannot be read or does not hold."""


class NotJoined(KernelError):
    """A process speaks to a ledger that does not know it, or in which another life of the same holder has begun."""

    def __init__(self, holder: str, run: str) -> None:
        self.holder, self.run = holder, run
        super().__init__(f"{holder}: run {run} is not joined, or another life of it has begun (join again)")


class NewsUnreadable(KernelError):
    """A ledger holds news that this version cannot take: of a newer one, or damaged."""

    def __init__(self, number: int, problem: str) -> None:
        self.number = number
        super().__init__(f"news {number} of the ledger: {problem}")


class StillJoined(KernelError):
    """A ledger cannot begin anew while processes draw on it."""

    def __init__(self, holders: Sequence[str]) -> None:
        self.holders = tuple(holders)
        super().__init__(f"these processes are joined: {', '.join(holders)} (stop them first)")
