"""The state of a lane in a file: what `encode` writes is the same for the same state, and all that `decode` reads.

A line is a JSON value without white space, objects with sorted keys:

    {"at":SEQ,"lane":LANE,"v":1}
    {"broken":B,"clock_accepted":B,"clock_ok":B,"state":"real","taken_over":SEQ}
    [AGENT,EPOCH,SESSION,HALT,QUARANTINED_UNTIL_US,QUARANTINE,REFUSED,REPEATED,TRAIL,ACCOUNTS,PACES] sorted by agent
    [AGENT,SEEN_US,PREVENTIVE]                                                                       sorted by agent
    [DECISION,FLOW,AGENT,SINCE_US,REQUEST,DRAWS]                                                     sorted by decision
    {"broken":B,"clock_accepted":B,"clock_ok":B,"state":"shadow","taken_over":SEQ}                   and lines as above

Where a ledger is asked, the first of these lines has "pooled":true and "workers", too, and what is leased follows the
open flows:

    [[BUDGET,UNIT,AGENT],WINDOW,AMOUNT,ELSEWHERE,LEASE]                                              sorted by account
    [LEASE,[BUDGET,UNIT,AGENT],WINDOW,AMOUNT]                                                        sorted by number

Where news of a ledger were ever taken, that line has "heard", and where all agents were ever halted together
"system":[EPOCH,HALT]. What all agents share has the agent "". Values within are arrays of the fields of kernel/state.py
in their order; runs stand in the order in which they are forgotten, accounts and paces are sorted.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kernel.contagion import Prevention
from kernel.errors import SnapshotError
from kernel.folding import States
from kernel.state import (
    GOING,
    UNKNOWN,
    Account,
    AccountKey,
    Draw,
    Halt,
    Lease,
    Leased,
    OpenFlow,
    PaceKey,
    Preventive,
    Quarantine,
    Run,
    Standing,
    State,
    Switch,
)

_VERSION = 1
_NAMES = ("real", "shadow")
# What comes after these fields of a standing has a line of its own.
_ALONE = Standing._fields.index("preventive")
_FLAGS = frozenset({"broken", "clock_accepted", "clock_ok", "state", "taken_over"})
_POOLED_FLAGS = _FLAGS | {"pooled", "workers"}
_AGENT_FIELDS, _ACTIVE_FIELDS, _OPEN_FIELDS, _LEASED_FIELDS, _LEASE_FIELDS = 11, 3, 6, 5, 4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The states that the entries of a lane below `at` make."""

    lane: str
    at: int
    states: States


def encode(snapshot: Snapshot) -> bytes:
    """The file of a snapshot."""
    # Line by line: one call for all would keep every other thread waiting.
    write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode
    return "".join(f"{write(line)}\n" for line in _lines(snapshot)).encode()


def head(line: bytes) -> tuple[str, int]:
    """Lane and `at` of the snapshot whose file begins with this line; else SnapshotError."""
    try:
        return _head(json.loads(line))
    except ValueError as error:
        raise SnapshotError(f"not the beginning of a state: {error}") from None


def _head(value: Any) -> tuple[str, int]:
    if type(value) is not dict or value.keys() != {"at", "lane", "v"} or value["v"] != _VERSION:
        raise SnapshotError("not the beginning of a state")
    lane, at = _typed([value["lane"], value["at"]], str, int)
    return lane, at


def _lines(snapshot: Snapshot) -> Iterator[object]:
    yield {"at": snapshot.at, "lane": snapshot.lane, "v": _VERSION}
    for name, state in zip(_NAMES, (snapshot.states.real, snapshot.states.shadow), strict=True):
        yield _flags(name, state)
        yield from _agents(state)
        yield from _active(state)
        for decision, flow in sorted(state.open.items()):
            yield [decision, *flow._replace(draws=tuple(_drawn(draw) for draw in flow.draws))]
        for key, leased in sorted(state.leased.items()):
            yield [key, *leased]
        for number, lease in sorted(state.leases.items()):
            yield [number, *lease]


def _flags(name: str, state: State) -> dict[str, object]:
    pool = {"pooled": True, "workers": state.workers} if state.pooled else {}
    heard = {"heard": state.heard} if state.heard else {}
    system = {} if state.switch == GOING else {"system": state.switch}
    return {"broken": state.broken, "clock_accepted": state.clock_accepted, "clock_ok": state.clock_ok, "state": name,
            "taken_over": state.taken_over, **pool, **heard, **system}


def _drawn(draw: Draw) -> Any:
    """An open draw as it stands in the file: of which lease it was does not matter any more."""
    return draw[:5]


def _agents(state: State) -> Iterator[list[object]]:
    accounts, paces = defaultdict[str, list[AccountKey]](list), defaultdict[str, list[PaceKey]](list)
    for key in state.accounts:
        accounts[key[2]].append(key)
    for pace in state.paces:
        paces[pace[1]].append(pace)
    for agent in sorted({*state.agents, *accounts, *paces}):
        standing = state.agent(agent)
        yield [
            agent, *standing._replace(refused=_runs(standing.refused), repeated=_runs(standing.repeated))[:_ALONE],
            [[*key[:2], *_account(state.accounts[key])] for key in sorted(accounts.get(agent, ()))],
            [[pace[0], state.paces[pace]] for pace in sorted(paces.get(agent, ()))],
        ]


def _active(state: State) -> Iterator[list[object]]:
    """When agents last asked for something, and what the halts of others do to them."""
    for agent in sorted({*state.seen, *(name for name, each in state.agents.items() if each.preventive is not None)}):
        yield [agent, state.seen.get(agent, 0), state.agent(agent).preventive]


def _account(account: Account) -> list[object]:
    return [account.window, account.spent, account.held, sorted(account.places), account.trail]


def _runs(runs: Mapping[str, Run]) -> Any:
    return [[request, *run] for request, run in runs.items()]


def decode(raw: bytes) -> Snapshot:
    """The snapshot whose file is exactly `raw`; else SnapshotError."""
    try:
        snapshot = _Lines(raw).snapshot()
    except (ValueError, RecursionError) as error:
        raise SnapshotError(f"not the state of a lane: {error}") from None
    if encode(snapshot) != raw:
        raise SnapshotError("a state is written in one way only, and this is another")
    return snapshot


class _Lines:
    """The lines of a file, read in their order."""

    def __init__(self, raw: bytes) -> None:
        self._lines = raw.decode().split("\n")
        self._at = 0
        # Names of budgets and agents come many times, and are kept once.
        self._texts: dict[str, str] = {}

    def snapshot(self) -> Snapshot:
        lane, at = _head(self._next())
        return Snapshot(lane, at, States(*(self._state() for _ in _NAMES)))

    def _next(self) -> Any:
        if self._at == len(self._lines):
            raise SnapshotError("it ends too early")
        self._at += 1
        return json.loads(self._lines[self._at - 1])

    def _state(self) -> State:
        flags = self._next()
        if type(flags) is not dict or flags.keys() - {"heard", "system"} not in (_FLAGS, _POOLED_FLAGS):
            raise SnapshotError("not the beginning of a state")
        clock_ok, accepted, broken, taken_over = _typed(
            [flags["clock_ok"], flags["clock_accepted"], flags["broken"], flags["taken_over"]], bool, bool, bool, int)
        heard, pooled, workers = _typed(
            [flags.get("heard", 0), flags.get("pooled", False), flags.get("workers", 1)], int, bool, int)
        state = State(clock_ok=clock_ok, clock_accepted=accepted, broken=broken, taken_over=taken_over, pooled=pooled,
                      workers=workers, heard=heard,
                      switch=_switch(flags["system"]) if "system" in flags else GOING)
        while self._lines[self._at : self._at + 1] and self._lines[self._at].startswith("["):
            row = self._next()
            if len(row) == _AGENT_FIELDS:
                self._agent(state, row)
            elif len(row) == _ACTIVE_FIELDS:
                self._active(state, row)
            elif len(row) == _OPEN_FIELDS:
                self._open(state, row)
            elif len(row) == _LEASED_FIELDS:
                self._leased(state, row)
            elif len(row) == _LEASE_FIELDS:
                self._lease(state, row)
            else:
                raise SnapshotError("a line of another length")
        return state

    def _agent(self, state: State, row: list[Any]) -> None:
        halt, quarantine = row[3], row[5]
        name, epoch, session, _, until, _, refused, repeated, trail, accounts, paces = _typed(
            row, str, int, int, type(halt), int, type(quarantine), list, list, str, list, list)
        name = self._shared(name)
        standing = Standing(epoch, session, _halt(halt), until, _quarantine(quarantine), self._runs(refused),
                            self._runs(repeated), trail)
        if standing != UNKNOWN:
            state.agents[name] = standing
        for each in accounts:
            budget, unit, window, spent, held, places, followed = _typed(each, str, str, int, int, int, list, str)
            key = (self._shared(budget), self._shared(unit), name)
            state.accounts[key] = Account(window, spent, held, frozenset(map(_text, places)), followed)
        for each in paces:
            pace, at = _typed(each, str, int)
            state.paces[self._shared(pace), name] = at

    def _active(self, state: State, row: list[Any]) -> None:
        name, seen_us, _ = _typed(row, str, int, type(row[2]))
        name = self._shared(name)
        if seen_us:
            state.seen[name] = seen_us
        preventive = _preventive(row[2])
        if preventive is not None:
            state.agents[name] = state.agent(name)._replace(preventive=preventive)

    def _runs(self, rows: list[Any]) -> dict[str, Run]:
        runs = (_typed(row, str, int, int, str) for row in rows)
        return {request: Run(since, times, self._shared(outcome)) for request, since, times, outcome in runs}

    def _open(self, state: State, row: list[Any]) -> None:
        decision, flow, agent, since, _, draws = _typed(row, str, str, str, int, type(row[4]), list)
        drawn = tuple(self._draw(draw) for draw in draws)
        state.open[decision] = OpenFlow(flow, self._shared(agent), since, _text_or_none(row[4]), drawn)

    def _leased(self, state: State, row: list[Any]) -> None:
        key, window, amount, elsewhere, lease = _typed(row, list, int, int, int, type(None) if row[4] is None else int)
        state.leased[self._key(key)] = Leased(window, amount, elsewhere, lease)

    def _lease(self, state: State, row: list[Any]) -> None:
        number, key, window, amount = _typed(row, int, list, int, int)
        state.leases[number] = Lease(self._key(key), window, amount)

    def _key(self, row: list[Any]) -> AccountKey:
        budget, unit, agent = _typed(row, str, str, str)
        return self._shared(budget), self._shared(unit), self._shared(agent)

    def _draw(self, row: Any) -> Draw:
        of = row[1] if type(row) is list and len(row) > 1 else None
        budget, _, unit, window, amount = _typed(row, str, type(of), str, int, int)
        agent = _text_or_none(of)
        return Draw(self._shared(budget), agent and self._shared(agent), self._shared(unit), window, amount)

    def _shared(self, text: str) -> str:
        return self._texts.setdefault(text, text)


def _typed(row: Any, *kinds: type) -> list[Any]:
    """The row itself, where its values are of exactly these types."""
    if type(row) is not list or tuple(map(type, row)) != kinds:
        raise SnapshotError("a value is missing or of another type")
    return row


def _text(value: Any) -> str:
    if type(value) is not str:
        raise SnapshotError("a value is missing or of another type")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _halt(row: Any) -> Halt | None:
    if row is None:
        return None
    rule = row[2] if type(row) is list and len(row) > 2 else None
    reason, since, _, by, sources, entry, why = _typed(row, str, int, type(rule), str, list, str, str)
    return Halt(reason, since, _text_or_none(rule), by, tuple(map(_text, sources)), entry, why)


def _switch(row: Any) -> Switch:
    epoch, halt = _typed(row, int, type(row[1]) if type(row) is list and len(row) > 1 else int)
    return Switch(epoch, _halt(halt))


def _preventive(row: Any) -> Preventive | None:
    if row is None:
        return None
    action, until, origin, path, hop, entry, since, degraded = _typed(row, str, int, str, list, int, str, int, bool)
    return Preventive(Prevention(action), until, origin, tuple(map(_text, path)), hop, entry, since, degraded)


def _quarantine(row: Any) -> Quarantine | None:
    return None if row is None else Quarantine(*_typed(row, int, str, str, str))
