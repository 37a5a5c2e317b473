"""Every call of the ledger. Each takes the draft in which it collects its changes, and returns its answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kernel.leases import Balance, Member, Overview, Purse, Roster
from kernel.ledger.asking import acquire
from kernel.ledger.holding import held
from kernel.ledger.holding import settle as settle_one
from kernel.ledger.members import beat, join, leave
from kernel.ledger.recovery import alive, arrive, rebuild, repost
from kernel.ledger.tables import HEAD
from kernel.ledger.telling import tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernel.leases import Settled
    from kernel.ledger.tables import Account, Draft

__all__ = ["acquire", "beat", "join", "leave", "look", "overview", "rebuild", "repost", "settle", "tell"]


def settle(draft: Draft, holder: str, settled: Sequence[Settled]) -> None:
    """End leases. One that is over already, or lost, is left as it is."""
    arrive(draft)
    for each in settled:
        settle_one(draft, holder, each.lease, each.used)


def look(draft: Draft, purses: Sequence[Purse] = ()) -> Roster:
    """What a process has to know of the others: it costs what they and these purses are, however many there are."""
    found = ((purse, draft.accounts.get(purse)) for purse in sorted(set(purses)))
    balances = (_balance(purse, each) for purse, each in found if each is not None)
    return Roster(draft.server, draft.now_us, tuple(balances), _members(draft), _news(draft))


def overview(draft: Draft) -> Overview:
    """Everything that is kept, in the order of its names."""
    balances = (_balance(Purse(*key), each) for key, each in draft.accounts.under())
    leases = ((holder, held(number, lease)) for (holder, number), lease in draft.leases.under()
              if not lease.lost)
    return Overview(draft.server, draft.now_us, tuple(balances), tuple(leases), _members(draft), _news(draft))


def _balance(purse: Purse, account: Account) -> Balance:
    return Balance(purse, account.limit, account.spent, account.held, account.stranded)


def _members(draft: Draft) -> tuple[Member, ...]:
    return tuple(Member(holder, life.run, life.seen_us, alive(draft, life), json.loads(life.said))
                 for (holder,), life in draft.lives.under())


def _news(draft: Draft) -> int:
    head = draft.head.get(HEAD)
    return head.news if head else 0
