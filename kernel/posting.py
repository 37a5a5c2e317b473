"""What the entries of a lane say to a ledger that does not know it: what is spent of each purse, and what is leased."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from kernel.leases import Held, Purse, Total
from kernel.state import RATE, State


def totals(state: State) -> Iterator[Total]:
    """What the settled leases of a lane have used of each purse, and what it drew before it had any.

    What was leased and may still be drawn without a lease counts as used. A purse that only comes round again with
    another window is the ledger's to forget.
    """
    live: dict[Purse, int] = defaultdict(int)
    for lease in state.leases.values():
        live[Purse(*lease.key, lease.window)] += lease.amount
    for key, leased in state.leased.items():
        if key[1] != RATE:
            purse = Purse(*key, leased.window)
            yield Total(purse, leased.amount, leased.amount - live[purse])
    for key, account in state.accounts.items():
        gone = account.spent + account.held
        if key not in state.leased and gone and key[1] != RATE:
            yield Total(Purse(*key, account.window), gone, gone)


def held(state: State, run: str) -> list[Held]:
    """The leases that are not settled; one with amount 0 says how far the numbers have come."""
    found = [Held(number, Purse(*lease.key, lease.window), lease.amount, run, 0)
             for number, lease in sorted(state.leases.items())]
    numbered = [(leased.lease, Purse(*key, leased.window)) for key, leased in state.leased.items() if leased.lease]
    if numbered and max(numbered)[0] not in state.leases:
        found.append(Held(*max(numbered), 0, run, 0))
    return found
