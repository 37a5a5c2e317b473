"""What a unit of a shared budget costs, from leases or one by one: `python -m scripts.benchmark.ledgers URL...`."""

from __future__ import annotations

import sys
from contextlib import closing
from secrets import token_hex
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, NamedTuple

from addons.pools.opening import open_ledger
from addons.pools.protocol import LedgerError
from kernel.leases import Ask, Purse, Settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from addons.pools.protocol import Ledger

CHUNKS = (1, 10, 100, 500)
CALLS = 400


class Cost(NamedTuple):
    """Of a unit that is drawn from leases of `chunk` units. A lease is two calls: granted, and settled."""

    chunk: int
    unit_us: float
    call_us: float


def costs(ledger: Ledger, chunks: Sequence[int] = CHUNKS, calls: int = CALLS) -> list[Cost]:
    """Measured by one process, with a purse that never ends. With a chunk of 1 each draw is a round trip of its own."""
    run = token_hex(8)
    holder = f"governor/benchmark/{run}"
    ledger.join(holder, run, {})
    try:
        return [_cost(ledger, holder, run, chunk, calls // 2) for chunk in chunks]
    finally:
        ledger.leave(holder)


def _cost(ledger: Ledger, holder: str, run: str, chunk: int, leases: int) -> Cost:
    purse = Purse("benchmark", "requests", run, 0)
    began = perf_counter()
    for number in range(leases):
        ask = Ask(chunk * leases * 2 + number, purse, 2**50, chunk, chunk)
        grant, = ledger.acquire(holder, run, [ask], time_ns() // 1000)
        if grant.lease is None:
            raise LedgerError(f"nothing was granted: {grant.why}")
        ledger.settle(holder, [Settled(grant.lease, chunk)])
    micros = (perf_counter() - began) * 1_000_000
    return Cost(chunk, micros / (leases * chunk), micros / (leases * 2))


def main(urls: Sequence[str]) -> int:
    """0 measured, 1 a ledger does not answer or grants nothing."""
    try:
        for url in urls:
            with closing(open_ledger(url)) as ledger:
                for cost in costs(ledger):
                    print(f"{url.partition(':')[0]:8} leases of {cost.chunk:3}: {cost.unit_us:8.1f} us a unit, "
                          f"{cost.call_us:6.0f} us a call")
    except LedgerError as problem:
        print(f"scripts.benchmark.ledgers: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
