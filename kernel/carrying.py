"""The state that a successor lane begins with: what the verified part of the lost one makes, and more where that binds.

What the lost part did cannot be known, so everything is taken as it could be worst. Whoever was halted, quarantined or
held back stays so, whatever comes after the verified part. What was open has ended as nobody knows how. And each budget
counts as used up in the window that was open at the loss: nobody can say what was drawn of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernel.arithmetic import KINDS
from kernel.bounds import COUNTER
from kernel.budget import Every
from kernel.canonical import MAX_INTEGER
from kernel.folding import States
from kernel.state import LOST, TOGETHER, Account, Change, Standing, State, Switch
from kernel.transition import change, micros

_SESSION = tuple(Every).index(Every.SESSION)


def carried(states: States, lost_us: int) -> States:
    """What goes on from the states of the verified part, at the moment of the loss."""
    made = states.copy()
    real = made.real
    for agent, standing in real.agents.items():
        real.accounts[(*LOST, agent)] = Account(standing.epoch + standing.session)
    real.accounts[(*LOST, TOGETHER)] = Account(lost_us)
    for key, account in real.accounts.items():
        if key[2] == TOGETHER and account.window % KINDS == _SESSION and not _is_marking(key[0]):
            # A session of all together never ends, so that none of this name is left.
            real.accounts[key] = account._replace(spent=MAX_INTEGER)
    return made


def _is_marking(budget: str) -> bool:
    return budget == LOST[0] or budget.endswith(COUNTER)


def bind(state: State, entry: Mapping[str, Any], name: str) -> None:
    """Take from a signed entry behind the verified part what binds: a halt, a quarantine, a clock that jumped.

    What lets go, a release above all, does not count there.
    """
    made = change(state, entry, name, micros(entry["ts"]))
    agents = {agent: _bound(state.agent(agent), standing) for agent, standing in made.agents.items()}
    state.take(Change(agents, clock_ok=None if made.clock_ok else made.clock_ok, broken=made.broken,
                      switch=_kept(state.switch, made.switch)))


def bind_all(state: State, other: State) -> None:
    """The same for a whole state that a signed entry names."""
    for agent, standing in other.agents.items():
        state.take(Change({agent: _bound(state.agent(agent), standing)}, broken=other.broken))
    state.take(Change(switch=_kept(state.switch, other.switch)))


def _kept(old: Switch, new: Switch | None) -> Switch:
    return old if new is None or new.halt is None else old.halted(new.halt)


def _bound(old: Standing, new: Standing) -> Standing:
    if new.halt is not None and old.halt is None:
        old = old._replace(halt=new.halt)
    if new.quarantined_until_us > old.quarantined_until_us:
        old = old._replace(quarantined_until_us=new.quarantined_until_us, quarantine=new.quarantine)
    if new.preventive is not None and not new.preventive.is_weaker(old.preventive):
        old = old._replace(preventive=new.preventive)
    return old
