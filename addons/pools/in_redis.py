"""A ledger in a Redis or Valkey server, for the processes of many hosts: each call is one script within the server."""

from __future__ import annotations

import json
import secrets
from functools import cache
from itertools import batched
from typing import TYPE_CHECKING, Any

from addons.pools.protocol import NewsUnreadable
from addons.pools.server import Script, Server
from addons.shipped import ROOT, content
from kernel import errors
from kernel.arithmetic import KINDS, clamped
from kernel.leases import (
    CLOCKS_APART_US,
    LEASE_SECONDS,
    MOST,
    PROCESSES_SHARE,
    Balance,
    Beat,
    Grant,
    Held,
    Member,
    News,
    Overview,
    Purse,
    Roster,
    Why,
)
from kernel.ledger.members import FORGOTTEN_US, MOST_NEWS, MOST_UNKNOWN, as_news, text_of
from kernel.ledger.tables import Told
from kernel.ledger.turns import paced

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kernel.leases import Ask, Settled, Total

_LUA = ROOT / "addons" / "pools" / "lua"
_CONSTANTS = {
    "KINDS": KINDS, "LEASE_US": LEASE_SECONDS * 1_000_000, "CLOCKS_APART_US": CLOCKS_APART_US,
    "PROCESSES_SHARE": PROCESSES_SHARE, "MOST_NEWS": MOST_NEWS, "MOST_UNKNOWN": MOST_UNKNOWN,
    "FORGOTTEN_US": FORGOTTEN_US, "MOST": MOST,
}  # fmt: skip
# Calls that are not on the way of a request may look at all there is.
_PATIENT_SECONDS = 5.0
_PURSES_AT_ONCE = 500
"""How many purses are read while others wait: a few milliseconds."""


class RedisLedger:
    """The ledger in the server at `url`."""

    def __init__(self, url: str) -> None:
        self._server = Server(url)

    def join(self, holder: str, run: str, said: Mapping[str, object]) -> Sequence[Held]:
        left = self._run("join", [holder, run, text_of(said)], seconds=_PATIENT_SECONDS)
        return sorted(_held(row) for row in left)

    def acquire(self, holder: str, run: str, asks: Sequence[Ask], now_us: int) -> Sequence[Grant]:
        answers = self._run("acquire", [holder, run, now_us, [_ask(ask) for ask in asks]])
        return [_grant(ask, answer) for ask, answer in zip(asks, answers, strict=True)]

    def settle(self, holder: str, settled: Sequence[Settled]) -> None:
        self._run("settle", [holder, [(each.lease, clamped(each.used, MOST)) for each in settled]])

    def beat(self, holder: str, run: str, seen: int, now_us: int, said: Mapping[str, object]) -> Beat:
        seen = max(0, seen)
        name, now, alive, lost, repost, news, there = self._run("beat", [holder, run, seen, text_of(said)])
        told = tuple(_news(number, row) for number, row in enumerate(news, seen + 1) if row)
        newest = min(there, seen + MOST_NEWS)
        return Beat(self._named(name), now, alive, told, newest, lost=bool(lost), repost=bool(repost))

    def tell(self, holder: str, news: News) -> News:
        said = [news.kind, news.agent, news.origin, text_of(news.said), news.epoch, news.session]
        number, epoch, session, at_us, kept = self._run("tell", said)
        return _known(number, Told(news.kind, news.agent, news.origin, kept.decode(), epoch, session, at_us))

    def repost(self, holder: str, totals: Sequence[Total], leases: Sequence[Held]) -> None:
        self._run("repost", [holder, *_post(totals, leases)], seconds=_PATIENT_SECONDS)

    def leave(self, holder: str) -> None:
        self._run("leave", [holder])

    def look(self, purses: Sequence[Purse] = ()) -> Roster:
        name, now, news, balances, lives = self._run("look", [[_id(purse) for purse in sorted(set(purses))]])
        return Roster(self._named(name), now, _balances(balances), _members(lives), news)

    def overview(self) -> Overview:
        """Each purse as it is at one moment, and not all at the same: the server does nothing else in a script."""
        name, now, news, ids, leases, lives = self._run("overview", [], seconds=_PATIENT_SECONDS)
        rows: list[Sequence[Any]] = []
        for some in batched(ids, _PURSES_AT_ONCE):
            rows += self._run("look", [[each.decode() for each in some]], seconds=_PATIENT_SECONDS)[3]
        held = sorted((row[0].decode(), _held(row[1:])) for row in leases)
        return Overview(self._named(name), now, _balances(rows), tuple(held), _members(lives), news)

    def rebuild(self, posts: Mapping[str, tuple[Sequence[Total], Sequence[Held]]]) -> None:
        said = [[holder, *_post(*post)] for holder, post in sorted(posts.items())]
        self._run("rebuild", [said], seconds=_PATIENT_SECONDS)

    def close(self) -> None:
        self._server.close()

    def _run(self, call: str, said: Sequence[object], seconds: float | None = None) -> Any:
        waits = {} if seconds is None else {"seconds": seconds}
        return self._server.run(_script(call), secrets.token_hex(8), json.dumps(said), **waits)

    def _named(self, name: bytes) -> str:
        """The ledger's own name, which is another where all of it was lost, with the server's id."""
        return f"{name.decode()}/{self._server.run_id}"


@cache
def _script(call: str) -> Script:
    constants = "".join(f"local {name} = {value}\n" for name, value in _CONSTANTS.items())
    return Script.of(constants + "".join(content(_LUA / f"{part}.lua").decode() for part in ("books", call)))


def _name(purse: Purse) -> str:
    return json.dumps(purse[:3], separators=(",", ":"), ensure_ascii=False)


def _id(purse: Purse) -> str:
    return f"{_name(purse)}#{purse.window}"


def _purse(name: bytes) -> Purse:
    text, _, window = name.decode().rpartition("#")
    budget, unit, agent = json.loads(text)
    return Purse(budget, unit, agent, int(window))


def _ask(ask: Ask) -> list[object]:
    limit, want = clamped(ask.limit, MOST), clamped(ask.want, MOST)
    least = ask.least if ask.least <= limit else -1
    each_us = burst = 0
    if ask.each_us > 0:
        each_us, burst, least = paced(ask)
    purse = ask.purse
    return [ask.number, _name(purse), purse.window, purse.agent, limit, least, want, ask.item, each_us, burst]


def _grant(ask: Ask, answer: Sequence[Any]) -> Grant:
    purse, amount, lease, elsewhere, wait_us, why = answer
    why = Why(why.decode()) if why else None
    return Grant(ask.number, _purse(purse), amount, None if lease < 0 else lease, elsewhere, wait_us, why)


def _held(row: Sequence[Any]) -> Held:
    number, purse, amount, run, ask = row
    return Held(number, _purse(purse), amount, run.decode(), ask)


def _post(totals: Sequence[Total], leases: Sequence[Held]) -> tuple[list[object], list[object]]:
    said = [(_id(total.purse), clamped(total.limit, MOST), clamped(total.used, MOST)) for total in totals]
    return [*said], [(each.lease, _id(each.purse), clamped(each.amount, MOST), each.run, each.ask) for each in leases]


def _news(number: int, row: Sequence[Any]) -> News:
    # Whatever is not text is damaged, and is found so.
    texts, counts = [each.decode(errors="backslashreplace") for each in row[:4]], row[4:]
    return _known(number, Told(*texts, *counts))


def _known(number: int, told: Told) -> News:
    try:
        return as_news(number, told)
    except errors.NewsUnreadable as problem:
        raise NewsUnreadable(str(problem)) from None


def _balances(rows: Sequence[Sequence[Any]]) -> tuple[Balance, ...]:
    return tuple(sorted(Balance(_purse(row[0]), *row[1:]) for row in rows))


def _members(rows: Sequence[Sequence[Any]]) -> tuple[Member, ...]:
    return tuple(sorted((_member(row) for row in rows), key=lambda member: member.holder))


def _member(row: Sequence[Any]) -> Member:
    holder, run, seen_us, alive, said = row
    return Member(holder.decode(), run.decode(), seen_us, bool(alive), json.loads(said))
