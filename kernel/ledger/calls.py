"""Every call of the ledger. Each takes the draft in which it collects its changes, and returns its answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kernel.leases import Balance, Member, Overview, Purse
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
    from kernel.ledger.tables import Draft

__all__ = ["acquire", "beat", "join", "leave", "overview", "rebuild", "repost", "settle", "tell"]


def settle(draft: Draft, holder: str, settled: Sequence[Settled]) -> None:
    """End leases. One that is over already, or lost, is left as it is."""
    arrive(draft)
    for each in settled:
        settle_one(draft, holder, each.lease, each.used)


def overview(draft: Draft) -> Overview:
    """Everything that is kept, in the order of its names."""
    head = draft.head.get(HEAD)
    balances = (Balance(Purse(*key), each.limit, each.spent, each.held, each.stranded)
                for key, each in draft.accounts.under())
    leases = ((holder, held(number, lease)) for (holder, number), lease in draft.leases.under())
    members = (Member(holder, life.run, life.seen_us, alive(draft, life), json.loads(life.said))
               for (holder,), life in draft.lives.under())
    news = head.news if head else 0
    return Overview(draft.server, draft.now_us, tuple(balances), tuple(leases), tuple(members), news)
