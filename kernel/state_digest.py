"""What a step for an agent may read of the state, and the hash over it: `pre` and `post` of a decision's entry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from blake3 import blake3

from kernel.entry import EMPTY_SET
from kernel.state import GOING, RATE, TOGETHER, UNKNOWN, UNTOUCHED, turns_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.bounds import Bound, Pace
    from kernel.state import Account, AccountKey, Change, Halt, PaceKey, Standing, State, Switch

_DOMAIN = b"governor/kernel/accounts/v1\0"
_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_ALL = _json(TOGETHER)


class Reads:
    """Which accounts and rates a step for one agent may read, and the hash over them."""

    __slots__ = (
        "_agent", "_heads", "_keys", "_known", "_pace_heads", "_pace_keys", "_seen", "_turn_heads", "_turn_keys",
    )

    def __init__(self, agent: str, bounds: Iterable[Bound], paces: Iterable[Pace]) -> None:
        self._agent = own = _json(agent)
        self._keys: list[AccountKey] = []
        self._heads: list[str] = []
        self._pace_keys: list[PaceKey] = []
        self._pace_heads: list[str] = []
        self._turn_keys: list[AccountKey] = []
        self._turn_heads: list[str] = []
        # What a policy names is plain: nothing of it needs an escape in JSON.
        for bound in bounds:
            self._keys.append(bound.key(agent))
            self._heads.append(f'["{bound.budget}","{bound.unit}",{own if bound.each else _ALL},')
        for pace in paces:
            of = own if pace.each else _ALL
            self._pace_keys.append(pace.key(agent))
            self._pace_heads.append(f'["{pace.name}",{of},')
            self._turn_keys.append(turns_key(pace.key(agent)))
            self._turn_heads.append(f'["{pace.name}","{RATE}",{of},')
        self._seen: tuple[object, ...] = ()
        self._known = ""

    def digest(self, state: State, change: Change, agent: str) -> str:
        """The hash over all of them after the change: `pre` and `post` of the agent's entry."""
        standing = change.agents.get(agent) or state.agent(agent)
        switch = change.switch or state.switch
        if state.pooled:
            return self._pooled(standing, switch, state, change)
        changed, old, paces = change.accounts, state.accounts, state.paces
        if changed:
            accounts = [changed.get(key) or old.get(key) for key in self._keys]
        else:
            accounts = [old.get(key) for key in self._keys]
        due = [change.paces.get(key, paces.get(key)) for key in self._pace_keys]
        seen = standing, switch, accounts, due
        # Between two entries of an agent mostly nothing of this changes.
        if seen != self._seen:
            told = [f"{head}{at}]" for head, at in zip(self._pace_heads, due, strict=True) if at is not None]
            self._seen, self._known = seen, self._hash(standing, switch, _accounts(self._heads, accounts), told)
        return self._known

    def _pooled(self, standing: Standing, switch: Switch, state: State, change: Change) -> str:
        """The same where a ledger leases what is drawn: rates are accounts of turns then."""
        keys = self._keys + self._turn_keys
        accounts = [change.accounts.get(key) or state.accounts.get(key) for key in keys]
        leased = [change.leased.get(key) or state.leased.get(key) for key in keys]
        seen = standing, switch, accounts, leased
        if seen != self._seen:
            heads = self._heads + self._turn_heads
            told = [f"{head}{each.window},{each.amount},{each.elsewhere}]"
                    for head, each in zip(heads, leased, strict=True) if each is not None]
            self._seen, self._known = seen, self._hash(standing, switch, _accounts(heads, accounts), told, "leased")
        return self._known

    def _hash(
        self, standing: Standing, switch: Switch, accounts: list[str], more: list[str], name: str = "paces"
    ) -> str:
        if standing == UNKNOWN and switch == GOING and not accounts and not more:
            return EMPTY_SET
        system = "" if switch == GOING else f',"system":[{switch.epoch},{_halt(switch.halt)}]'
        held = standing.preventive
        prevented = "" if held is None else f",{_json([held.action, held.until_us])}"
        raw = (
            f'{{"accounts":[{",".join(accounts)}],"agent":[{self._agent},{standing.epoch},{standing.session},'
            f'{_halt(standing.halt)},{standing.quarantined_until_us},"{standing.trail}"{prevented}],'
            f'"{name}":[{",".join(more)}]{system}}}')
        return blake3(_DOMAIN + raw.encode()).hexdigest()


def _halt(halt: Halt | None) -> str:
    return "null" if halt is None else _json([halt.reason, halt.since_us, halt.rule, halt.by])


def _accounts(heads: list[str], accounts: list[Account | None]) -> list[str]:
    return [
        f'{head}{each.window},{each.spent},{each.held},"{each.trail}"]'
        for head, each in zip(heads, accounts, strict=True) if each is not None and each is not UNTOUCHED
    ]
