"""What the Governor of one run is told when it is started, by whoever encloses the command."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

from kernel.identity import digest

_VARIABLE = "GOVERNOR_OF_RUN"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The command that is served: which agent it is, what encloses it, and the token by which it is known where nothing
    does.
    """

    agent: str
    tier: str
    token: str | None = None

    @property
    def enclosed(self) -> str | None:
        """The agent that every client is, because nobody else can reach the sockets."""
        return self.agent if self.token is None else None

    @property
    def lent(self) -> Mapping[str, str]:
        """The agent by the digest of its token, where it has one."""
        return {} if self.token is None else {digest(self.token): self.agent}


@dataclass(frozen=True, slots=True)
class Post:
    """`run` names the run. The rest are numbers of inherited descriptors: the socket to whoever started this, the
    sockets to serve at by their names, and the policy's text where it is no file's. `token` is that of a command that
    nothing encloses.
    """

    run: str
    agent: str
    tier: str
    channel: int
    sockets: Mapping[str, int]
    policy: int | None
    token: str | None

    @property
    def lane(self) -> str:
        """The lane of the run."""
        return f"run-{self.run}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that the process is to inherit."""
        return (self.channel, *self.sockets.values(), *(() if self.policy is None else (self.policy,)))

    def environment(self) -> dict[str, str]:
        """What is to stand in the environment of the process."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def taken(cls) -> Self:
        """The post of this process, whose own children inherit none of it."""
        post = cls(**json.loads(os.environ.pop(_VARIABLE)))
        for each in post.descriptors:
            os.set_inheritable(each, False)  # noqa: FBT003
        return post

    def listening(self) -> dict[str, socket.socket]:
        """The sockets to serve at."""
        return {name: socket.socket(fileno=each) for name, each in self.sockets.items()}

    def connection(self) -> socket.socket:
        """The socket to whoever started this."""
        return socket.socket(fileno=self.channel)

    def policy_text(self) -> bytes | None:
        """The policy, where it is no file's."""
        if self.policy is None:
            return None
        with os.fdopen(self.policy, "rb") as file:
            return file.read()
