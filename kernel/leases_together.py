"""What the leases of all lanes say together: each number stands in one lane, and none is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from kernel.chain import split
from kernel.errors import ChainError, KernelError
from kernel.lease_numbers import LEASE, LeaseNumbers, Number, granted
from kernel.marks import Broken
from kernel.reading import Parse
from kernel.report import Failure, Result
from kernel.walk import Found, Source


def lease_problems(found: Sequence[Found], sources: Sequence[Source], parse: Parse, *, part: bool) -> Iterator[Broken]:
    """Numbers that stand in two lanes; and where the whole of each is there, those that stand in none.

    `sources` are the lanes in the order of `found`. Of a log that is a `part` of one, none is missed.
    """
    leases = LeaseNumbers()
    for lane, source in zip(found, sources, strict=True):
        try:
            twice = leases.add(lane.leases)
        except ChainError as error:
            yield Broken(Result.TAMPERED, Failure(source.lane, None, None, None, None, str(error)))
            return
        if twice is not None:
            first = next(before.lane.lane for before in found if twice in before.leases)
            reason = f"lease {twice.number} stands in lane {first}, too: two processes have drawn on it"
            yield Broken(Result.TAMPERED, _failure(lane, source, twice, parse, reason))
    whole = not any(source.first or source.end is not None for source in sources)
    if whole and not part:
        yield from _missing(leases, [lane.leases.newest for lane in found if lane.lane.live])


def _missing(leases: LeaseNumbers, live: Sequence[int]) -> Iterator[Broken]:
    number = leases.missing()
    # A lane that is being written may have it next, or have it since it was read.
    if number is not None and all(number < newest for newest in live):
        reason = f"lease {number} of the shared budgets stands in no lane"
        yield Broken(Result.INCOMPLETE, Failure(None, None, None, None, None, reason))


def _failure(lane: Found, source: Source, lease: Number, parse: Parse, reason: str) -> Failure:
    # A file that changes while it is read twice has no place to tell.
    with suppress(KernelError):
        seq = lane.begin.size
        for segment, lines in source.segments():
            offset = 0
            for number, line in enumerate(lines, 1):
                if LEASE in line and granted(parse(split(line)[0])) == lease:
                    return Failure(source.lane, segment, number, offset, seq, reason)
                seq, offset = seq + 1, offset + len(line)
    return Failure(source.lane, None, None, None, None, reason)
