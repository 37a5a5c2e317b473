"""A run that is ended while it starts, or by whom it did not ask: what had been begun for it is gone when it is."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from addons.client_trust.laid import Laid
from addons.sandbox import enclosure, own_governor, running, tiers
from addons.sandbox.asked import Asked
from addons.sandbox.held import RunFailed, held
from addons.sandbox.run_policy import RunPolicy
from addons.sandbox.tiers import Tier
from tests.e2e.network_hosts import needs_networks

# It does not end by itself, and neither does what it has begun.
DEAF = "sleep 60 & wait"
IMPATIENT = f"kill -TERM $PPID; {DEAF}"
# In the place of bubblewrap, which has begun, and whose inner process is not bound to it yet.
UNBOUND = 'setsid sleep 60 & echo "{}" >&4; wait'

POLICY = RunPolicy("none", (), None, ((80, 80),))


@pytest.fixture
def asked(tmp_path) -> Asked:
    environment = {"PATH": os.defpath, "MARK": tmp_path.as_posix()}
    return Asked(("true",), "local", Tier.ENV, tmp_path / "home", POLICY, environment)


def marked(mark: str) -> list[str]:
    """What was started with this variable and lives."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            # Somebody else's, or gone.
            continue
    return found


@pytest.mark.parametrize("script", [DEAF, IMPATIENT], ids=["once", "twice"])
def test_a_run_that_is_ended_while_its_governor_is_begun_leaves_nothing_of_it(asked, monkeypatch, script):
    def serving(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        return ["sh", "-c", script], {}

    monkeypatch.setattr(own_governor, "_serving", serving)
    monkeypatch.setattr(own_governor, "END_SECONDS", 0.3)
    began = time.monotonic()

    with pytest.raises(RunFailed, match="before the command began"):
        asyncio.run(running.run(asked))

    assert time.monotonic() - began < 30
    assert marked(asked.environment["MARK"]) == []


@needs_networks
@pytest.mark.skipif(tiers.tool("nft") is None, reason="needs nft")
@pytest.mark.parametrize("tier", [Tier.NETNS, Tier.BWRAP])
@pytest.mark.parametrize("below", [0, 1, 2], ids=["network", "holder", "bubblewrap"])
def test_what_bubblewrap_has_begun_ends_with_whoever_of_the_run_is_killed(asked, tmp_path, monkeypatch, below, tier):
    monkeypatch.setattr(enclosure, "arguments", lambda *_: ["sh", "-c", UNBOUND])

    async def killed() -> list[str]:
        async with held(replace(asked, tier=tier)) as command:
            await command.start(asked, tmp_path, Laid(tmp_path, {}))
            victim = next(pid for pid in children(os.getpid()) if b"sandbox.network" in cmdline(pid))
            for _ in range(below):
                victim, = children(victim)
            assert any("sleep" in line for line in marked(asked.environment["MARK"]))
            os.kill(victim, signal.SIGKILL)
            await asyncio.wait_for(command.ended, 10)
            return await asyncio.to_thread(left_of, asked.environment["MARK"])

    assert asyncio.run(killed()) == []


def children(process: int) -> list[int]:
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def cmdline(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


def left_of(mark: str) -> list[str]:
    """What lives after a time in which all could have ended."""
    deadline = time.monotonic() + 10
    while left := marked(mark):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return left
