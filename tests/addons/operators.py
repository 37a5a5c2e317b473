"""What of a Governor the operator's verbs need: a lane, a book, a registry and the control socket, in a test's loop."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from click.testing import CliRunner

from addons import build_info
from addons.agents_control import AgentsControl
from addons.book import Book
from addons.control import ControlServer
from addons.fleet import Fleet
from addons.governed import prepare
from addons.identity import Registry
from addons.lane import Lane
from addons.verbs.agents import agents
from addons.verbs.clock import clock
from kernel.folding import States
from kernel.state import State
from kernel.system import Said

POLICY = """\
version: 1
rules:
  - allow: read
    to: example.org
    methods: reads
"""


class Running:
    def __init__(self, home, bounds=None):
        file = home.paths.folder.parent / "policy.yaml"
        file.write_text(POLICY)
        governed = prepare([file], frozenset())
        self.governed = replace(governed, bounds=bounds or governed.bounds)
        self.lane = Lane.open(home, "main", kernel=build_info.kernel_identity())
        self.registry = Registry(home.paths.agents)
        self.ended = []
        self.book = Book(self.lane, States(State(), State()), lambda: self.governed,
                         self.registry.whereabouts.of)
        self.book.on_halt = lambda agent, verdict: self.ended.append(agent)
        self.book.on_halt_all = lambda verdict: self.ended.append("*")
        self.fleet = Fleet(f"{home.log_id}/main", self.book, self.tells)
        self.control = AgentsControl(self.registry, self.book, home, self.fleet)
        self.server = ControlServer(home.paths.control_sock, self.control.handlers())

    def tells(self):
        return Said("main", "p" * 64, "1", True, halted=self.state.switch.halt is not None)

    @property
    def state(self):
        return self.book.state

    async def stop(self):
        await self.server.stop()
        self.lane.close("test")


def run(home, verb, *arguments, group=agents):
    return CliRunner().invoke(group, [verb, *arguments, "--home", str(home.paths.folder)])


async def run_async(home, *arguments, **more):
    return await asyncio.to_thread(run, home, *arguments, **more)


def told(result):
    """What a verb said as JSON, after it was done."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def acts(home, lane):
    """The operator entries of a lane."""
    lines = (home.paths.lane(lane) / "000000.jsonl").read_text().splitlines()
    common = {"v", "type", "seq", "prev", "ts", "mono_us", "lane"}
    entries = [json.loads(line)["e"] for line in lines]
    return [{name: value for name, value in entry.items() if name not in common}
            for entry in entries if entry["type"] == "operator"]


__all__ = ["Running", "acts", "agents", "clock", "run", "run_async", "told"]
