"""What a worker is told when it is started: who it is, and what its supervisor has decided for all of them."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass
from typing import Self

_VARIABLE = "GOVERNOR_WORKER"


@dataclass(frozen=True, slots=True)
class Post:
    """`number` from 0; `workers` are all of them. `modes` are mitmproxy's, with the ports that were chosen.

    `channel` is the number of the inherited socket to the supervisor.
    """

    number: int
    workers: int
    modes: tuple[str, ...]
    metrics_port: int
    channel: int

    @property
    def lane(self) -> str:
        """The lane that it writes, which is also its name."""
        return lane_of(self.number)

    def environment(self) -> dict[str, str]:
        """What is to stand in the environment of the process."""
        return {_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def taken(cls) -> Self:
        """The post of this process, which its own children do not find again."""
        told = json.loads(os.environ.pop(_VARIABLE))
        return cls(**told | {"modes": tuple(told["modes"])})

    def connection(self) -> socket.socket:
        """The socket to the supervisor, which no child inherits."""
        os.set_inheritable(self.channel, False)  # noqa: FBT003
        return socket.socket(fileno=self.channel)


def lane_of(number: int) -> str:
    """The lane of a worker."""
    return f"w{number}"
