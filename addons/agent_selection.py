"""What of a log goes into a bundle about one agent: its entries alone, each with the receipt that proves it.

The lines between them are about others. Of those a receipt holds hashes.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import batched

from addons import codec
from addons.audit_log import TRUST, AuditLog
from addons.audit_view import Filter, agent_of
from addons.bundle_selection import Member
from addons.proving import Prover
from addons.receipts_check import receipt_name
from kernel import canonical
from kernel.chain import split_text
from kernel.errors import KernelError
from kernel.manifest import Period
from kernel.receipt import Proved, write_receipt

# One pass over the lane for so many receipts, which wait in memory meanwhile.
_AT_ONCE = 10_000
_OUTCOME = b'"type":"outcome"'
_QUIET = " quiet"


@dataclass(slots=True)
class Told:
    """From when to when the entries are that were put in, and how many no signed head covers yet."""

    uncovered: int = 0
    first: str | None = None
    last: str | None = None

    def take(self, proved: Proved) -> None:
        self.first = proved.ts if self.first is None else min(self.first, proved.ts)
        self.last = proved.ts if self.last is None else max(self.last, proved.ts)


def beside(log: AuditLog) -> list[Member]:
    """What a bundle about one agent has beside the receipts."""
    return [Member.whole(f"audit/{TRUST}", log.audit / TRUST)]


def receipts(log: AuditLog, agent: str, period: Period, told: Told) -> Iterator[Member]:
    """The receipts of the agent's entries, in the order of their names. `told` is complete when they are at their end.

    `addons.proving.Unprovable` where an entry is not what the signed head says.
    """
    prover = Prover.at(log, None)
    for lane in sorted(log.lanes(), key=lambda lane: f"{lane}/"):
        for wanted in batched(_entries_about(prover, lane, agent, period), _AT_ONCE):
            made, uncovered = prover.receipts(lane, wanted)
            told.uncovered += uncovered
            for receipt, proved in made:
                told.take(proved)
                yield Member.of(receipt_name(lane, proved.seq), write_receipt(receipt).encode())


def _entries_about(prover: Prover, lane: str, agent: str, period: Period) -> Iterator[int]:
    """The numbers of the entries of a lane that are about the agent, and of the outcomes of its decisions."""
    wanted, named = Filter(since=period.start, until=period.end), canonical.encode(agent)[:-1]
    own, seq = array("Q"), -1
    for _, lines in prover.sources[lane].segments():
        for line in lines:
            seq += 1
            if named not in line and _OUTCOME not in line:
                continue
            try:
                entry = codec.read(split_text(line)[0])
                if not isinstance(entry, dict) or not (_is_about(entry, agent) or _follows(entry, lane, own)):
                    continue
                if entry.get("type") == "decision":
                    own.append(seq)
                if wanted.wants(entry):
                    yield seq
            except (KernelError, LookupError, TypeError):
                # What is no entry is about nobody; `audit verify` tells of it.
                continue


def _is_about(entry: dict[str, canonical.Value], agent: str) -> bool:
    return agent_of(entry) in (agent, agent + _QUIET)


def _follows(entry: dict[str, canonical.Value], lane: str, own: array[int]) -> bool:
    """Whether an entry is the outcome of one of these decisions of its lane."""
    of, _, number = str(entry.get("decision")).partition("/")
    if entry.get("type") != "outcome" or of != lane or not (number.isascii() and number.isdecimal()):
        return False
    at = bisect_left(own, int(number)) if len(number) < 17 else len(own)
    return at < len(own) and own[at] == int(number)
