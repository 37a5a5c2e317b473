"""A run that is ended while it starts: what had been begun for it is gone when it is."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from addons.sandbox import own_governor, running
from addons.sandbox.asked import Asked
from addons.sandbox.held import RunFailed
from addons.sandbox.run_policy import RunPolicy
from addons.sandbox.tiers import Tier

# It does not end by itself, and neither does what it has begun.
DEAF = "sleep 60 & wait"
IMPATIENT = f"kill -TERM $PPID; {DEAF}"


@pytest.fixture
def asked(tmp_path) -> Asked:
    environment = {"PATH": os.defpath, "MARK": tmp_path.as_posix()}
    return Asked(("true",), "local", Tier.ENV, tmp_path / "home", RunPolicy("none", (), None, ()), environment)


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
