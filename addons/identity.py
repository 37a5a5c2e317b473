"""The registered agents as a running Governor sees them: read again as soon as `agents.json` changes."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from heapq import nlargest
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING

from addons import agents_file
from addons.agents_file import Agents, AgentsError
from addons.errors import StartCode, StartRefused
from addons.whereabouts import Whereabouts
from kernel import identity
from kernel.entry import timestamp
from kernel.identity import Evidence, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from kernel.facts import Agent
    from kernel.policy import Identity
    from kernel.verdict import Code

LOOK_SECONDS = 0.1

_Stamp = tuple[int, int, int, int] | None


class Registry:
    """Who is who. The file is looked at every 100 ms at most; a bad one leaves the last good one in force.

    `StartRefused` when the file is bad or missing from the start; later `report` is given the error, once a change.
    """

    def __init__(self, path: Path, report: Callable[[AgentsError], object] = lambda error: None,
                 lent: Mapping[str, str] = MappingProxyType({})) -> None:
        """`lent` are tokens that stand in no file, as long as this process lives: agents by the digest of each."""
        self._path, self._report, self._lent = path, report, lent
        self._lock = threading.Lock()
        self._stamp = self._look()
        try:
            self._tokens = self._with_lent(agents_file.load(path).tokens())
        except AgentsError as error:
            raise StartRefused(StartCode.HOME_INCOMPLETE, str(error)) from error
        self._next_look = time.monotonic() + LOOK_SECONDS
        self._last_seen: dict[str, float] = {}
        self.whereabouts = Whereabouts()

    @property
    def tokens(self) -> Tokens:
        """The tokens that hold now."""
        if time.monotonic() >= self._next_look:
            self.refresh()
        return self._tokens

    def identify(
        self, policy: Identity, evidence: Evidence, address: str | None = None
    ) -> tuple[Agent, None] | tuple[None, Code]:
        """The agent behind this evidence, or the code that refuses the flow.

        `address` is the client's: who is identified there is known to come from there.
        """
        agent, code = identity.identify(self.tokens, policy, evidence)
        if agent is None:
            assert code is not None
            return None, code
        if agent.by != "none":
            self._last_seen[agent.id] = time.time()
            if address is not None:
                self.whereabouts.saw(agent.id, address)
        return agent, None

    def registered(self) -> Agents:
        """The file as it is now. It waits for the disk: call it in a thread."""
        return agents_file.load(self._path)

    def change(self, update: Callable[[Agents], Agents], before_write: Callable[[], object]) -> None:
        """Change the file; the change is in force when this returns. It waits for the disk: call it in a thread."""
        agents_file.change(self._path, update, before_write)
        self.refresh()

    def refresh(self) -> None:
        """Look at the file now, for a change that must be in force when this returns."""
        with self._lock:
            self._next_look = time.monotonic() + LOOK_SECONDS
            stamp = self._look()
            if stamp == self._stamp:
                return
            try:
                self._tokens = self._read()
            except AgentsError as error:
                self._report(error)
            # Not before: after any other fault the file is read again, so that no revoked token stays good.
            self._stamp = stamp

    def last_seen(self) -> dict[str, str]:
        """When each agent was last identified by this process, as the log writes times."""
        return {name: _moment(seconds) for name, seconds in dict(self._last_seen).items()}

    def newest_seen(self, most: int) -> dict[str, int]:
        """The agents that this process saw last, and when, in microseconds since 1970."""
        newest = nlargest(most, dict(self._last_seen).items(), key=itemgetter(1))
        return {name: int(seconds * 1_000_000) for name, seconds in newest}

    def flush(self) -> None:
        """Write the last use of each agent into the file. For a thread, once a minute and at the end."""
        seen = self.last_seen()
        if seen:
            agents_file.change(self._path, lambda agents: _used(agents, seen))

    def _read(self) -> Tokens:
        tokens = self._with_lent(agents_file.load(self._path).tokens())
        if self._tokens.known and not tokens.known:
            # A file that was removed or emptied would make every flow the agent `local`.
            raise AgentsError(f"{self._path}: it lost its tokens; those in force stay (restore it from a backup)")
        return tokens

    def _with_lent(self, tokens: Tokens) -> Tokens:
        return replace(tokens, agents={**tokens.agents, **self._lent}, known=True) if self._lent else tokens

    def _look(self) -> _Stamp:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode


def _used(agents: Agents, seen: dict[str, str]) -> Agents:
    updated = {
        name: replace(agent, tokens=tuple(_token_used(token, seen[name]) for token in agent.tokens))
        for name, agent in agents.agents.items()
        if name in seen
    }
    return Agents(agents.agents | updated)


def _token_used(token: agents_file.Token, when: str) -> agents_file.Token:
    if token.revoked or when <= (token.last_used or token.added):
        return token
    return replace(token, last_used=when)


def _moment(seconds: float) -> str:
    return timestamp(datetime.fromtimestamp(seconds, UTC))
