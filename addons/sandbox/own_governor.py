"""The Governor of one run, seen from outside (`run_host.py` is the other side)."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any

from addons.client_trust import system_store
from addons.client_trust.certificates import at, once, pem
from addons.client_trust.readable_files import put
from addons.sandbox import demotion
from addons.sandbox.advised import Advised
from addons.sandbox.asked import Asked
from addons.sandbox.held import OUR_CODE, ROOT, Held, RunFailed
from addons.sandbox.inside import governors_own
from addons.sandbox.post import Post
from addons.sandbox.ruleset import NAMES_PORT, PROXY_PORT
from addons.sandbox.tiers import tool
from addons.workers.channel import Channel

START_SECONDS = 60.0
END_SECONDS = 20.0
_SERVE = OUR_CODE + "from addons.serve import serve_run; sys.exit(serve_run())"
_SERVE_DEMOTED = OUR_CODE + (
    "from addons.sandbox.demotion import demote; demote(int(sys.argv.pop(1)), int(sys.argv.pop(1))); "
    "from addons.serve import serve_run; sys.exit(serve_run())")


@asynccontextmanager
async def own_governor(asked: Asked, command: Held | Advised, folder: Path) -> AsyncIterator[OwnGovernor]:
    """A Governor that serves the command alone, and ends in order after it. Raises `RunFailed` where it does not serve.

    `folder` is the run's; what Governor is to read of this user's is put there where it cannot read that itself.
    """
    ours, theirs = socket.socketpair()
    with theirs, tempfile.TemporaryFile() as said, ExitStack() as given:
        policy = None if asked.policy.text is None else given.enter_context(_file_of(asked.policy.text)).fileno()
        post = Post(asked.run, asked.agent, asked.tier, theirs.fileno(), dict(command.sockets), policy, command.token)
        line, variables = _serving(asked, command, folder)
        variables = {**governors_own(asked.environment), **variables, **post.environment()}
        channel = await Channel.over(ours)
        given.callback(channel.close)
        # Not asyncio's, and nothing is awaited before the next try: a start that was ended there would leave it alone,
        # or have killed bubblewrap without what that has just begun, which then waits for it for good.
        process = subprocess.Popen(  # noqa: ASYNC220
            line, env=variables, stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=post.descriptors,
            # The terminal's signals are for the command.
            process_group=0)
        theirs.close()
        governor = OwnGovernor(channel, asyncio.ensure_future(asyncio.to_thread(process.wait)))
        try:
            await governor.serving(said)
            yield governor
            channel.tell("end")
        except BaseException:
            # Which it hears, and ends.
            channel.close()
            raise
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(governor.ended), END_SECONDS)
            with suppress(ProcessLookupError):
                if not governor.ended.done():
                    # With what stands around it, which is of its group.
                    os.killpg(process.pid, signal.SIGKILL)
            await governor.ended


class OwnGovernor:
    """`told` is what it said when it began to serve; `ended` is done once it has ended."""

    def __init__(self, channel: Channel, ended: asyncio.Future[int]) -> None:
        self.channel, self.ended = channel, ended
        self.told: Mapping[str, Any] = {}
        self._serving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        channel.on("serving", self._hear)
        self._hearing = asyncio.ensure_future(channel.run())

    async def serving(self, said: Any) -> None:
        """Wait until it serves. Raises `RunFailed` with what it `said` where it does not."""
        either: list[asyncio.Future[Any]] = [self._serving, self.ended]
        await asyncio.wait(either, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not self._serving.done():
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines()
            text = next((line for line in words if line.startswith("governor: ")), words[-1] if words else "")
            raise RunFailed(text or f"Governor did not serve within {START_SECONDS:g} s")

    async def _hear(self, message: Mapping[str, Any]) -> None:
        self.told = message
        if not self._serving.done():
            self._serving.set_result(None)


def _file_of(content: bytes) -> IO[bytes]:
    """A file without a name, to be read from its beginning."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(content)
    file.seek(0)
    return file


def _serving(asked: Asked, command: Held | Advised, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    """Its command line and its own variables; without root's powers where root asks."""
    options = _options(asked, command, _trusted(asked.environment, folder))
    bwrap = tool("bwrap")
    serving = [sys.executable, "-I", "-c", _SERVE, os.fspath(ROOT), *options]
    if os.geteuid() != 0 or bwrap is None:
        return serving, {}
    owner = demotion.owner_of(asked.home, folder)
    enclosed = demotion.arguments(bwrap, owner, asked.home, demotion.needed_by(ROOT, folder, asked.policy.files))
    if owner.user == 0:
        return [*enclosed, *serving], {}
    demoted = [sys.executable, "-I", "-c", _SERVE_DEMOTED, os.fspath(ROOT), str(owner.user), str(owner.group)]
    return [*enclosed, *demoted, *options], demotion.pins_for(owner, folder)


def _trusted(environment: Mapping[str, str], folder: Path) -> Path | None:
    """The roots by which origins are known: the caller's, in a file that Governor can read whoever it runs as.

    A company's own authority stands in the system's store or in SSL_CERT_FILE. None where there is neither: mitmproxy
    brings roots along.
    """
    said = environment.get("SSL_CERT_FILE")
    roots = once(system_store.trusted(Path("/")), at(Path(said)) if said else ())
    return put(folder / "origins.pem", pem(roots)) if roots else None


def _options(asked: Asked, command: Held | Advised, trusted: Path | None) -> list[str]:
    ports = {"dns": NAMES_PORT}
    settings = [f"governor_home={asked.home}", "governor_metrics=127.0.0.1:0"]
    settings += [f"governor_policy={file}" for file in asked.policy.files]
    settings += [] if trusted is None else [f"ssl_verify_upstream_trusted_ca={trusted}"]
    return [*(part for mode in command.modes for part in ("--mode", f"{mode}@{ports.get(mode, PROXY_PORT)}")),
            *(part for setting in settings for part in ("--set", setting))]
