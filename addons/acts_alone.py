"""An operator's act while no Governor runs on the home: it goes into lane `cli`, and the next start takes it over."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from addons import agents_file, build_info
from addons.agent_rows import Rows, system_told
from addons.agents_file import Act, AgentsError, changed
from addons.audit_log import is_live
from addons.control import ControlTimeout, NotRunning, request, user_name
from addons.halts_on_disk import state_on_disk
from addons.home import Home, Paths
from addons.lane import Lane
from addons.lineage import newest
from addons.operator_acts import OF_ALL, Deed, Order, has_effect, said_by
from kernel import entry
from kernel.transition import CLI, act_number, written

if TYPE_CHECKING:
    from pathlib import Path

CONTROL_SECONDS = 20.0
START_SECONDS = 10.0
WAY = "cli"
_PAUSE_SECONDS = 0.1


def rows(folder: Path) -> Rows:
    """How agents stand, without what only a running Governor knows: budgets, risk, and who was seen since the last."""
    paths = known_home(folder)
    return Rows(agents_file.load(paths.agents), {}, state_on_disk(paths), None, _now_us())


def act(folder: Path, deed: Deed, agent: str | None, reason: str, claimed: str | None, seconds: int) -> dict[str, Any]:
    """Write down an operator's act for the next start; `ActRefused` where it has no sense."""
    paths, now_us = known_home(folder), _now_us()
    state, registered = state_on_disk(paths), agents_file.load(paths.agents).agents
    effect = has_effect(deed, agent, state, registered, now_us)
    told: dict[str, Any] = {"changed": effect, "entry": None, "in_force": False}
    if effect:
        operator, by = said_by(user_name(os.getuid()), claimed, WAY)
        until = written(now_us + seconds * 1_000_000) if deed is Deed.QUARANTINE else None
        told["entry"] = _write(folder, Order(deed, agent, reason, operator, by, until).entry())
        told["in_force"] = _hand_over(paths)
    if deed in OF_ALL:
        return told | {"confirmed": 0, "processes": 0, "system": system_told(state_on_disk(paths))}
    return told if agent is None else told | {"agent": rows(folder).shown(agent)}


def register(folder: Path, act: Act, name: str, sha256: str | None) -> dict[str, Any]:
    """Change a registration. The file is in force at once; a session begins with the next start."""
    path = known_home(folder).agents
    operator = user_name(os.getuid())
    now = entry.timestamp(datetime.now(UTC))
    known = agents_file.load(path).tokens().known
    agents_file.change(
        path,
        lambda agents: changed(agents, act, name, sha256, operator, now),
        lambda: _write(folder, entry.operator(f"agents {act}", name, "", operator, WAY)),
    )
    _hand_over(Paths(folder))
    return {"first": act.gives_token and not known, "agent": rows(folder).shown(name)}


def note(folder: Path, act: str, reason: str, claimed: str | None) -> str:
    """Write down an act on the home itself, whether or not a Governor runs; the number of its entry."""
    known_home(folder)
    operator, by = said_by(user_name(os.getuid()), claimed, WAY)
    return _write(folder, entry.operator(act, None, reason, operator, by))


def known_home(folder: Path) -> Paths:
    """A home that exists: a mistyped --home must not make a new one."""
    paths = Paths(folder)
    if not paths.trust.exists():
        raise AgentsError(f"{folder} is no home (governor init makes one; --home names another)")
    return paths


def _write(folder: Path, body: entry.Body) -> str:
    home = Home.open(folder)
    lane = Lane.open(home, newest(home.paths, CLI, home.root), kernel=build_info.kernel_identity())
    try:
        return f"{lane.name}/{lane.write_now('operator', body)}"
    finally:
        lane.close("done")


def _hand_over(paths: Paths) -> bool:
    """Whether the act is in force already: a Governor that is starting may have looked before it was there.

    One that starts later finds it. `ControlTimeout` where one holds its lane and opens no socket.
    """
    deadline = time.monotonic() + START_SECONDS
    while _starts(paths):
        try:
            request(paths.folder, "agents", CONTROL_SECONDS, act="takeover")
        except NotRunning:
            if time.monotonic() >= deadline:
                text = f"the Governor on {paths.folder} has not finished its start; the act stands in lane {CLI}"
                raise ControlTimeout(text) from None
            time.sleep(_PAUSE_SECONDS)
        else:
            return True
    return False


def _starts(paths: Paths) -> bool:
    """Whether somebody writes a lane of the home that is not the verbs' own."""
    return any(is_live(lane) for lane in paths.lanes.iterdir() if act_number(f"{lane.name}/0") is None)


def _now_us() -> int:
    return time.time_ns() // 1000
