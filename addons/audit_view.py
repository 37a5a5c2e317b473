"""The entries of a log in the order of time, now and as they come. Reading only: nothing is verified here."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from addons import codec
from addons.audit_log import AuditLog, open_regular
from addons.segment import segment_names
from kernel import chain
from kernel.errors import CanonicalError, ChainError

type Entry = dict[str, Any]
type Shown = tuple[bytes, Entry]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries are wanted; None wants any. `since` and `until` are timestamps as the log writes them."""

    agent: str | None = None
    verdict: str | None = None
    rule: str | None = None
    host: str | None = None
    since: str | None = None
    until: str | None = None

    def wants(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry has everything that is asked for."""
        return (
            (self.since is None or entry["ts"] >= self.since)
            and (self.until is None or entry["ts"] < self.until)
            and (self.verdict is None or entry.get("verdict") == self.verdict)
            and (self.rule is None or entry.get("rule") == self.rule)
            and (self.agent is None or agent_of(entry) == self.agent)
            and (self.host is None or host_of(entry) == self.host.lower().rstrip("."))
        )


class View:
    """A log that is being looked at. `damaged` is True once a line could not be read."""

    def __init__(self, log: AuditLog, wanted: Filter, complain: Callable[[str], object]) -> None:
        self._lanes = log.audit / "lanes"
        self._wanted, self._complain = wanted, complain
        self._tails: dict[str, _Tail] = {}
        self.damaged = False

    def fresh(self) -> Iterator[Shown]:
        """The wanted entries since the last call, oldest first, each with its line."""
        for name in sorted(os.listdir(self._lanes)) if self._lanes.is_dir() else []:
            if name not in self._tails and (self._lanes / name).is_dir():
                self._tails[name] = _Tail(self._lanes / name)
        streams = [self._entries(tail) for tail in self._tails.values()]
        for _, line, entry in heapq.merge(*streams, key=itemgetter(0)):
            if self._wanted.wants(entry):
                yield line, entry

    def _entries(self, tail: _Tail) -> Iterator[tuple[str, bytes, Entry]]:
        for place, line in tail.read():
            try:
                entry: Any = codec.read(chain.split(line)[0])
                stamp = entry["ts"]
                if not isinstance(stamp, str):
                    raise ChainError("ts is not a string")
            except (ChainError, CanonicalError, KeyError, TypeError) as error:
                self.damaged = True
                self._complain(f"{place}: not an entry ({error}); governor audit verify says more")
            else:
                yield stamp, line, entry


class _Tail:
    """Where the reading of a lane has come to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._segment = ""
        self._offset = 0

    def read(self) -> Iterator[tuple[str, bytes]]:
        """The whole lines since the last call, each with its place. An unfinished last line waits until it is whole."""
        for name in segment_names(self._folder):
            if name < self._segment:
                continue
            if name > self._segment:
                self._segment, self._offset = name, 0
            with open_regular(self._folder / name) as file:
                file.seek(self._offset)
                while (line := file.readline(chain.MAX_LINE_BYTES)).endswith(b"\n") or len(
                    line
                ) == chain.MAX_LINE_BYTES:
                    place = f"{self._folder.name}/{name}, byte {self._offset}"
                    self._offset += len(line)
                    yield place, line


def agent_of(entry: Mapping[str, Any]) -> object:
    """The agent that an entry is about, None where it names none."""
    agent = entry.get("agent")
    return agent.get("id") if isinstance(agent, dict) else agent


def host_of(entry: Mapping[str, Any]) -> object:
    """The host that a decision is about, as the log names it."""
    facts = entry.get("in")
    return facts.get("host") if isinstance(facts, dict) else None
