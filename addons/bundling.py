"""Making an audit bundle: one tar with a part of a log, all that verifies it, and a signed list of what it holds.

Nothing of the vault goes in: where entries commit to a value, a bundle has the commitment alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from addons import audit_pyz, build_info, bundle_tar, durable, shipped
from addons.agent_selection import Told, beside, receipts
from addons.audit_log import TRUST, AuditLog, AuditLogError, open_regular
from addons.bundle_selection import Member, keys, select
from addons.control import user_name
from addons.errors import StartRefused
from addons.home import Home
from addons.lane import Lane
from addons.operator_acts import said_by
from kernel import entry
from kernel.errors import TrustError
from kernel.manifest import LISTING, MANIFEST, Manifest, Part, Period, listing
from kernel.transition import CLI
from kernel.trust import parse_trust_file

ACT = "audit bundle"
VERIFIER = "verify_log.py"
_WAY = "cli"
_README = """\
An audit bundle of Governor: a part of a signed log, and all that is needed to verify it.

    pip install blake3 cryptography
    python governor-audit.pyz verify THIS --trust KEY
    python governor-audit.pyz replay THIS

THIS is the tar, or the folder that it was unpacked to. KEY is the verifier key of the log's root, which `governor init`
printed: have it from somebody you trust, and not from this bundle. audit/trust.json only repeats it.

The program in here came with the evidence that it judges. Whoever is in doubt takes governor-audit.pyz, or for a bundle
of a whole log verify_log.py (one file, no code of Governor's), from a Governor of their own.

SHA256SUMS lists every other file (sha256sum -c SHA256SUMS), MANIFEST.note says what was asked for and what is covered.
"""

_AGENT_README = """\
An audit bundle of Governor about one agent: its entries in a signed log, each with the proof that it is in it.

    pip install blake3 cryptography
    python governor-audit.pyz verify THIS --trust KEY

THIS is the tar, or the folder that it was unpacked to. KEY is the verifier key of the log's root, which `governor init`
printed: have it from somebody you trust, and not from this bundle. audit/trust.json only repeats it.

receipts/LANE/SEQ.tlog-proof is a C2SP tlog-proof; its line `extra` holds the entry (base64 of JSON). The entries of
others are not in here, so nothing proves that these are all. SHA256SUMS lists every other file, MANIFEST.note says what
was asked for.
"""


@dataclass(frozen=True, slots=True)
class Made:
    """What was made: how many files, who signed, and why nobody did where nobody did."""

    path: Path
    manifest: Manifest
    files: int
    signed_by: str | None
    unsigned: str | None
    entry: str | None
    uncovered: int = 0
    """How many entries about the agent are left out, as no signed head covers them yet."""


class Signer:
    """Signs a manifest in the name of the home, and writes down that it did."""

    def __init__(self, lane: Lane, claimed: str | None) -> None:
        self._lane, self._claimed = lane, claimed

    @property
    def kid(self) -> str:
        return self._lane.kid

    def sign(self, manifest: Manifest) -> str:
        return self._lane.sign(manifest.body())

    def write_down(self, note: str) -> str:
        """The entry by which a bundle is known again: it holds the digest of the manifest."""
        operator, by = said_by(user_name(os.getuid()), self._claimed, _WAY)
        reason = f"{MANIFEST} {sha256(note.encode()).hexdigest()}"
        return f"{CLI}/{self._lane.write_now('operator', entry.operator(ACT, None, reason, operator, by))}"


def bundle(log: AuditLog, period: Period, output: Path | None, claimed: str | None = None, agent: str | None = None,
           progress: Callable[[int], object] = lambda _: None) -> Made:
    """Make the bundle at `output`, else in the working directory under a name of its log; it is there once it is whole.

    It is signed where the log lies in a home that can be written; `AuditLogError` and OSError where it cannot be read.
    """
    log_id = _log_id(log)
    output = Path(f"governor-audit-{log_id}.tar") if output is None else output
    with _signer(log, claimed) as (signer, unsigned):
        chosen = _of_log(log, period, signer) if agent is None else _of_agent(log, period, agent, signer)
        with _placed(output) as file:
            sums = _write(file, chosen.members, progress)
            manifest = Manifest(log_id, *listing(sums), period, chosen.covered(), agent, chosen.parts)
            note = manifest.unsigned() if signer is None else signer.sign(manifest)
            for last in (Member.of(LISTING, sums), Member.of(MANIFEST, note.encode())):
                bundle_tar.write(file, last.name, last.size, last.chunks())
            bundle_tar.finish(file)
            written = None if signer is None else signer.write_down(note)
        kid = None if signer is None else signer.kid
        return Made(output, manifest, sums.count(b"\n") + 2, kid, unsigned, written, chosen.uncovered())


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The files of a bundle in the order of their names. What is asked of them is known when all were taken."""

    members: Iterable[Member]
    covered: Callable[[], Period]
    parts: Mapping[str, Part] = field(default_factory=dict)
    uncovered: Callable[[], int] = int


def _of_log(log: AuditLog, period: Period, signer: Signer | None) -> _Chosen:
    selection = select(log, period, [] if signer is None else [CLI])
    verifier = shipped.ROOT / "scripts" / VERIFIER
    members = [*selection.members, *_tools(_README), Member.of(VERIFIER, shipped.content(verifier))]
    return _Chosen(_sorted(members), lambda: selection.covered, selection.parts)


def _of_agent(log: AuditLog, period: Period, agent: str, signer: Signer | None) -> _Chosen:
    told = Told()
    first = [*beside(log), *_tools(_AGENT_README), *([keys(log, CLI)] if signer is not None else [])]
    members = chain(_sorted(first), receipts(log, agent, period, told))
    return _Chosen(members, lambda: Period(told.first, told.last), uncovered=lambda: told.uncovered)


def _sorted(members: Iterable[Member]) -> list[Member]:
    return sorted(members, key=lambda member: member.name.encode())


@contextmanager
def _placed(output: Path) -> Iterator[BinaryIO]:
    """A private file that has the name `output` once all is in it, and is gone where that fails."""
    if os.path.lexists(output):
        raise AuditLogError(f"{output} is there already: evidence is not written over, name another file")
    path = output.with_name(f"{output.name}.partial")
    try:
        file = open(path, "xb", opener=partial(os.open, mode=durable.PRIVATE_FILE))  # noqa: SIM115
    except FileExistsError:
        text = f"{path} is there: a bundle is being made, or one was cut off; remove it where none is"
        raise AuditLogError(text) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        path.rename(output)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    durable.sync_folder(output.parent)


@contextmanager
def _signer(log: AuditLog, claimed: str | None) -> Iterator[tuple[Signer | None, str | None]]:
    """Who signs, or why nobody does: a copy of a log has no keys, and a damaged home takes no entry."""
    home = log.audit.parent
    if not (home / "keys").is_dir():
        yield None, "this is a copy of a log, without the keys of its home"
        return
    try:
        lane = Lane.open(Home.open(home), CLI, kernel=build_info.kernel_identity(), keeps_key=True)
    except StartRefused as refused:
        yield None, refused.text
        return
    try:
        yield Signer(lane, claimed), None
    finally:
        lane.close("done")


def _tools(readme: str) -> list[Member]:
    return [Member.of(audit_pyz.NAME, audit_pyz.build()), Member.of("README.txt", readme.encode())]


def _write(file: BinaryIO, members: Iterable[Member], progress: Callable[[int], object]) -> bytes:
    """Write the members and return the list of their digests, as `sha256sum` reads it."""
    sums = []
    for member in members:
        digest = sha256()
        content = _seen(member, digest.update, progress)
        try:
            first = next(content, b"")
        except FileNotFoundError:
            if member.passing:
                continue
            raise
        bundle_tar.write(file, member.name, member.size, chain((first,), content))
        sums.append(f"{digest.hexdigest()}  {member.name}\n")
    return "".join(sums).encode()


def _seen(member: Member, update: Callable[[bytes], object], progress: Callable[[int], object]) -> Iterator[bytes]:
    for chunk in member.chunks():
        update(chunk)
        progress(len(chunk))
        yield chunk


def _log_id(log: AuditLog) -> str:
    with open_regular(log.audit / TRUST) as file:
        try:
            return parse_trust_file(file.read()).log_id
        except TrustError as error:
            raise AuditLogError(f"{log.audit}: {error}") from None
