"""A ledger that may have come back from an older state: what it takes for lost until its processes have spoken.

For each purse every process that was joined is charged the largest lease that was ever granted. Nobody is granted
anything until all have said what their chains know, or as long has passed as a lease may live. Who speaks is charged
what is true instead; the charge of one that never does stays. A word that comes when its process has spoken already may
be an older one that was late: the leases that were granted since, or settled, are none of it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kernel.arithmetic import clamped
from kernel.errors import NotJoined, StillJoined
from kernel.leases import LEASE_SECONDS, MOST
from kernel.ledger.holding import correct, count, give_up, hold, opened
from kernel.ledger.tables import HEAD, Head, Lease, Life
from kernel.ledger.windows import forget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kernel.leases import Held, Purse, Total
    from kernel.ledger.tables import Draft

LEASE_US = LEASE_SECONDS * 1_000_000


def arrive(draft: Draft) -> Head:
    """The head, after it was seen whether the server is still the one of the call before."""
    head = draft.head.get(HEAD)
    if head is None:
        head = Head(draft.server)
        draft.head.put(HEAD, head)
    elif head.server != draft.server:
        head = head._replace(server=draft.server, changed_us=draft.now_us)
        draft.head.put(HEAD, head)
        _charge_all(draft)
    return head


def recovering(draft: Draft) -> bool:
    """True while processes have yet to speak, and time is left for it."""
    head = draft.head.get(HEAD)
    return _lately_changed(draft, head) and any(life.owes for _, life in draft.lives.under())


def charge_newcomer(draft: Draft) -> bool:
    """Charge one that the older state did not know as it did the others; False where nobody has to speak."""
    if not _lately_changed(draft, draft.head.get(HEAD)):
        return False
    _charge(draft, 1)
    return True


def repost(draft: Draft, holder: str, totals: Sequence[Total], leases: Sequence[Held]) -> None:
    """Take what a holder's chain says for what it has used and holds."""
    arrive(draft)
    life = draft.lives.get((holder,))
    if life is None:
        raise NotJoined(holder, "?")
    _take(draft, holder, totals, leases, first=life.owes)
    if life.owes:
        _charge(draft, -1)
        draft.lives.put((holder,), life._replace(owes=False))


def rebuild(draft: Draft, posts: Mapping[str, tuple[Sequence[Total], Sequence[Held]]]) -> None:
    """Forget all but news, standings and rates, and take what chains say. `StillJoined` while a process is alive."""
    head = arrive(draft)
    joined = [holder for (holder,), life in draft.lives.under() if alive(draft, life)]
    if joined:
        raise StillJoined(joined)
    # What a clock that was ahead has closed is open again: what was drawn there is what chains say.
    tidied_us = min(head.tidied_us, draft.now_us)
    draft.head.put(HEAD, head._replace(changed_us=min(head.changed_us, draft.now_us - LEASE_US), tidied_us=tidied_us))
    for table in (draft.accounts, draft.parts, draft.items, draft.fences, draft.leases, draft.asks, draft.counters,
                  draft.lives):
        for key, _ in table.under():
            table.drop(key)
    for holder, (totals, leases) in sorted(posts.items()):
        draft.lives.put((holder,), Life("", draft.now_us))
        _take(draft, holder, totals, leases, first=True)


def alive(draft: Draft, life: Life | None) -> bool:
    """True for a life that has been heard of lately."""
    return life is not None and life.run != "" and draft.now_us - life.seen_us < LEASE_US


def _lately_changed(draft: Draft, head: Head | None) -> bool:
    return head is not None and head.changed_us > 0 and draft.now_us - head.changed_us < LEASE_US


def _charge_all(draft: Draft) -> None:
    """Charge all that are joined, and give them time to speak: when they were seen last was long ago."""
    lives = draft.lives.under()
    owing = sum(life.owes for _, life in lives)
    for key, account in draft.accounts.under():
        charge = account.largest * len(lives) - account.share * owing
        draft.accounts.put(key, account._replace(spent=account.spent + charge, share=account.largest))
    for key, life in lives:
        draft.lives.put(key, life._replace(seen_us=draft.now_us, owes=True))


def _charge(draft: Draft, sign: int) -> None:
    for key, account in draft.accounts.under():
        if account.share:
            draft.accounts.put(key, account._replace(spent=account.spent + sign * account.share))


def _take(draft: Draft, holder: str, totals: Sequence[Total], leases: Sequence[Held], *, first: bool) -> None:
    """Take a word of a chain: all of a `first` one, of a later one what was used and which numbers are taken."""
    touched = {total.purse for total in totals}
    lost = _lost(draft, holder, leases)
    for total in totals:
        opened(draft, total.purse, clamped(total.limit, MOST))
        correct(draft, holder, total.purse, clamped(total.used + lost[total.purse], MOST))
    if first:
        touched |= _take_leases(draft, holder, leases)
    for each in leases:
        count(draft, holder, each.lease)
    for purse in touched:
        forget(draft, purse)


def _lost(draft: Draft, holder: str, leases: Sequence[Held]) -> Counter[Purse]:
    """What counts as used of leases that the chain does not know are lost, and so has not among what it used."""
    said = {each.lease for each in leases if each.amount > 0}
    found: Counter[Purse] = Counter()
    for (_, number), lease in draft.leases.under(holder):
        if lease.lost and number in said:
            found[lease.purse] += lease.amount
    return found


def _take_leases(draft: Draft, holder: str, leases: Sequence[Held]) -> set[Purse]:
    """Let the holder have the leases that its chain says, and no others; the purses of those that were kept."""
    said = {each.lease: each for each in leases if each.amount > 0}
    kept = {number: lease for (_, number), lease in draft.leases.under(holder)}
    for number, lease in kept.items():
        if number not in said and not lease.lost:
            give_up(draft, holder, number, lease)
    for number, each in said.items():
        if number not in kept:
            opened(draft, each.purse, 0)
            amount = clamped(each.amount, MOST)
            hold(draft, holder, number, Lease(*each.purse, amount, each.run, each.ask, item=False))
    return {lease.purse for lease in kept.values()}
