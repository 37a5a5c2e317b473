"""A command that nothing holds: it is told of a proxy and may leave it aside (tier env).

It is known to the proxy by a token that lives as long as the run, so that nobody else on the machine is taken for it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from addons.client_trust.laid import Laid
from addons.sandbox.asked import Asked
from addons.sandbox.held import RunFailed
from addons.sandbox.inside import environment

_TOKEN_BYTES = 32


@asynccontextmanager
async def advised(_: Asked) -> AsyncIterator[Advised]:
    """The command of a run and the socket that it is told of; it is killed at the end."""
    listening = socket.create_server(("127.0.0.1", 0))
    command = Advised(listening)
    try:
        yield command
    finally:
        command.kill()


class Advised:
    """The same as `held.Held`, for a command that is not held."""

    modes = ("regular",)

    def __init__(self, listening: socket.socket) -> None:
        self._port = listening.getsockname()[1]
        self.sockets: Mapping[str, int] = {"regular": listening.detach()}
        self.token: str | None = secrets.token_urlsafe(_TOKEN_BYTES)
        self.refused: dict[str, int] = {}
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, asked: Asked, folder: Path, laid: Laid) -> None:
        """Start the command, once its Governor serves."""
        for each in self.sockets.values():
            os.close(each)
        proxy = f"http://{asked.agent}:{self.token}@127.0.0.1:{self._port}"
        variables = environment(asked.environment, asked.agent, asked.tier, laid.variables, proxy)
        try:
            self._process = await asyncio.create_subprocess_exec(*asked.command, env=variables)
        except OSError as problem:
            raise RunFailed(f"{asked.command[0]}: {problem.strerror}") from problem
        self._waiting = asyncio.ensure_future(self._wait(self._process))

    def count(self) -> None:
        """No packet is seen that does not come to the proxy."""

    def signal(self, number: signal.Signals) -> None:
        """Send the command a signal; nothing where it is not there any more."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """End the command where it has not ended."""
        if self._process is not None and self._process.returncode is None:
            self.signal(signal.SIGKILL)

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        self.ended.set_result(status if status >= 0 else 128 - status)
