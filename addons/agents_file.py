"""`agents.json`: which agents are registered, and the SHA-256 of each token. A token itself is never in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from addons import durable
from addons.errors import GovernorError
from kernel.identity import Tokens, valid_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VERSION = 1
MAX_FILE_BYTES = 16 * 1024 * 1024
LOCK_WAIT_SECONDS = 5.0

_LOCK_STEP_SECONDS = 0.02
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class AgentsError(GovernorError):
    """`agents.json` cannot be used, or a change to it cannot be made. The file stands as it was."""


class Act(StrEnum):
    """What an operator does to an agent's registration."""

    ADD = "add"
    ROTATE = "rotate"
    REMOVE = "remove"

    @property
    def gives_token(self) -> bool:
        return self is not Act.REMOVE


@dataclass(frozen=True, slots=True)
class Token:
    """One token by its digest. Times are the log's: RFC 3339 in UTC, so that they compare as text."""

    sha256: str
    added: str
    revoked: str | None = None
    last_used: str | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent, also after its removal: whoever was known once stays known. `by` made the last change."""

    added: str
    by: str
    removed: str | None = None
    tokens: tuple[Token, ...] = ()

    @property
    def last_used(self) -> str | None:
        return max((token.last_used for token in self.tokens if token.last_used), default=None)


@dataclass(frozen=True, slots=True)
class Agents:
    """The whole file."""

    agents: dict[str, Agent] = field(default_factory=dict)

    def tokens(self) -> Tokens:
        """What identification needs of the file."""
        holding = {
            token.sha256: name
            for name, agent in self.agents.items()
            if agent.removed is None
            for token in agent.tokens
            if token.revoked is None
        }
        removed = frozenset(name for name, agent in self.agents.items() if agent.removed is not None)
        return Tokens(holding, frozenset(self.agents), any(agent.tokens for agent in self.agents.values()), removed)


def changed(agents: Agents, act: Act, name: str, sha256: str | None, operator: str, now: str) -> Agents:
    """`agents` after the act; `AgentsError` where it has no sense. `sha256` is the new token's digest."""
    if not valid_id(name):
        raise AgentsError(f"{name!r} is no agent name (a-z 0-9 . _ -, at most 64, and not local or anonymous)")
    old = agents.agents.get(name)
    active = old is not None and old.removed is None
    if act is Act.ADD and active:
        raise AgentsError(f"{name} is registered already (governor agents rotate {name} gives it a new token)")
    if act is not Act.ADD and not active:
        raise AgentsError(f"{name} is not registered (governor agents list shows who is)")
    tokens = tuple(_revoked(token, now) for token in (old.tokens if old else ()))
    if act.gives_token:
        tokens += (Token(_unused(agents, sha256), now),)
    added = old.added if old and active else now
    removed = now if act is Act.REMOVE else None
    return Agents(agents.agents | {name: Agent(added, operator, removed, tokens)})


def _unused(agents: Agents, sha256: str | None) -> str:
    used = (token.sha256 for agent in agents.agents.values() for token in agent.tokens)
    if sha256 is None or not _DIGEST.fullmatch(sha256) or sha256 in used:
        raise AgentsError("a new token is needed, one that no agent ever had")
    return sha256


def _revoked(token: Token, now: str) -> Token:
    return token if token.revoked else replace(token, revoked=now)


def change(path: Path, update: Callable[[Agents], Agents], before_write: Callable[[], object] = lambda: None) -> None:
    """Make one change under the lock: read, `update`, `before_write` (the log's entry), replace."""
    with _locked(path):
        before = load(path)
        after = update(before)
        if after == before:
            return
        before_write()
        try:
            durable.replace(path, _text(after))
        except OSError as error:
            raise AgentsError(f"{path}: {error.strerror}") from error


def _text(agents: Agents) -> bytes:
    document = {"v": VERSION, "agents": {name: asdict(agent) for name, agent in agents.agents.items()}}
    return json.dumps(document, indent=1).encode() + b"\n"


def load(path: Path) -> Agents:
    """The file at `path`; `AgentsError` says what is wrong with a bad or missing one."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            _check(path, os.fstat(file.fileno()))
            document = json.loads(file.read())
        return _agents(document)
    except OSError as error:
        raise AgentsError(f"{path}: {error.strerror} (restore it from a backup)") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise AgentsError(f"{path}: {error} (restore it from a backup)") from None


def _check(path: Path, status: os.stat_result) -> None:
    problem = durable.exposure(status) if stat.S_ISREG(status.st_mode) else "is not a regular file"
    if problem:
        raise AgentsError(f"{path} {problem}; it must be yours with mode 0600")
    if status.st_size > MAX_FILE_BYTES:
        raise AgentsError(f"{path}: {status.st_size} bytes, more than {MAX_FILE_BYTES}")


def _agents(document: dict[str, object]) -> Agents:
    if document == {}:
        # A new home's file: nothing was ever registered.
        return Agents()
    if set(document) != {"v", "agents"} or document["v"] != VERSION or not isinstance(document["agents"], dict):
        raise ValueError(f'not {{"v": {VERSION}, "agents": {{...}}}}')
    return Agents({name: _agent(name, **fields) for name, fields in document["agents"].items()})


def _agent(name: str, added: str, by: str, removed: str | None, tokens: list[dict[str, str]]) -> Agent:
    if not valid_id(name) or not isinstance(by, str):
        raise ValueError(f"{name!r} is no agent name, or has no operator")
    return Agent(_time(added), by, _maybe_time(removed), tuple(_token(**token) for token in tokens))


def _token(sha256: str, added: str, revoked: str | None, last_used: str | None) -> Token:
    if not _DIGEST.fullmatch(sha256):
        raise ValueError("a token has no SHA-256")
    return Token(sha256, _time(added), _maybe_time(revoked), _maybe_time(last_used))


def _time(text: str) -> str:
    if not _TIME.fullmatch(text):
        raise ValueError(f"{text!r} is no time like 2026-01-02T03:04:05.000006Z")
    return text


def _maybe_time(text: str | None) -> str | None:
    return None if text is None else _time(text)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the right to change the file against all others; `AgentsError` when it cannot be had in five seconds."""
    try:
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise AgentsError(f"{path.parent}: {error.strerror} (governor init makes a home)") from error
    try:
        _lock(descriptor, path, time.monotonic() + LOCK_WAIT_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise AgentsError(f"{path}: another process is changing it (try again)") from None
            time.sleep(_LOCK_STEP_SECONDS)
