"""The processes of a ledger: they join, are heard of, fall silent, leave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from kernel.errors import NewsUnreadable, NotJoined
from kernel.leases import Beat, Kind, News
from kernel.ledger.holding import held_by, strand
from kernel.ledger.recovery import LEASE_US, alive, arrive, charge_newcomer
from kernel.ledger.tables import HEAD, Life
from kernel.ledger.windows import tidy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kernel.leases import Held
    from kernel.ledger.tables import Draft, Told

MOST_NEWS = 256
MOST_UNKNOWN = 65536
"""How many numbers of news that an older state does not know a heartbeat can take from it."""
FORGOTTEN_US = 86_400_000_000
"""For how long a ledger knows a process of which nothing is heard."""


def join(draft: Draft, holder: str, run: str, said: Mapping[str, object]) -> Sequence[Held]:
    """Begin a life, and with that end the ones before; the leases that they left."""
    head = arrive(draft)
    sweep(draft)
    tidy(draft, head)
    _forget_silent(draft)
    life = draft.lives.get((holder,))
    if life is None:
        life = Life(run, draft.now_us, owes=charge_newcomer(draft))
    elif life.run != run:
        life = Life(run, draft.now_us, owes=life.owes)
    draft.lives.put((holder,), life._replace(seen_us=draft.now_us, said=text_of(said), lost=False))
    return [held for held in held_by(draft, holder) if held.run != run]


def beat(draft: Draft, holder: str, run: str, seen: int, said: Mapping[str, object]) -> Beat:
    """Hear of a life, and tell it what is new."""
    head = arrive(draft)
    sweep(draft)
    life = admitted(draft, holder, run)
    draft.lives.put((holder,), life._replace(seen_us=draft.now_us, said=text_of(said)))
    seen = max(0, seen)
    if seen > head.news:
        # Of a state older than what the process has seen: the numbers that it knows are not given again.
        head = head._replace(news=min(seen, head.news + MOST_UNKNOWN))
        draft.head.put(HEAD, head)
    newest = min(head.news, seen + MOST_NEWS)
    news = ((number, draft.news.get((number,))) for number in range(seen + 1, newest + 1))
    return Beat(draft.server, draft.now_us, living(draft), tuple(as_news(n, told) for n, told in news if told), newest,
                lost=bool(life.lost), repost=bool(life.owes))


def leave(draft: Draft, holder: str) -> None:
    """End the life of a holder; what it holds counts as spent."""
    arrive(draft)
    strand(draft, holder, silent=False)
    draft.lives.drop((holder,))


def admitted(draft: Draft, holder: str, run: str) -> Life:
    """The life that speaks; `NotJoined` unless it is the newest of its holder."""
    life = draft.lives.get((holder,))
    if life is None or life.run != run:
        raise NotJoined(holder, run)
    return life


def living(draft: Draft) -> int:
    """How many processes have been heard of lately."""
    return sum(alive(draft, life) for _, life in draft.lives.under())


def sweep(draft: Draft) -> None:
    """All that is held by those who fell silent counts as spent from now on, whatever they say later."""
    for (holder,), life in draft.lives.under():
        if not life.lost and draft.now_us - life.seen_us >= LEASE_US:
            strand(draft, holder, silent=True)
            draft.lives.put((holder,), life._replace(lost=True))


def text_of(said: Mapping[str, object]) -> str:
    """What a process says, as JSON."""
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


def as_news(number: int, told: Told) -> News:
    """What was told, as it is kept. `NewsUnreadable` where that is of a kind that is not known, or damaged."""
    try:
        kind = Kind(told.kind)
    except ValueError:
        raise NewsUnreadable(number, f"kind {told.kind!r} is not known here (a newer version of Governor told it: "
                                     "start this one in that version)") from None
    try:
        said = json.loads(told.said)
    except ValueError as damage:
        raise NewsUnreadable(number, f"what is kept of it is damaged: {damage}") from None
    if not isinstance(said, dict):
        raise NewsUnreadable(number, "what is kept of it is damaged: it has no fields")
    return News(kind, told.agent, told.origin, said, number, told.epoch, told.session, told.at_us)


def _forget_silent(draft: Draft) -> None:
    for (holder,), life in draft.lives.under():
        if draft.now_us - life.seen_us >= FORGOTTEN_US:
            draft.lives.drop((holder,))
