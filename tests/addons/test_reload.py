"""A reload that fails in a way that nobody expected is as loud as any other, and as harmless."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from addons import policy_store
from addons.home import Home
from addons.identity import Registry
from addons.in_force import InForce
from addons.metrics import Metrics


@pytest.mark.parametrize("fault", [RuntimeError("a secret"), MemoryError(), RecursionError()])
async def test_a_fault_in_a_reload_leaves_the_old_policy_and_is_told_by_its_class(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    def fail(*arguments: Any) -> None:
        raise fault

    registry, metrics = Registry(home.paths.agents), Metrics("0", "0")
    governed = policy_store.first([], home.paths, registry)
    lane: Any = SimpleNamespace(last_policy=None)
    in_force = InForce(governed, lane, home.paths, registry, metrics)
    monkeypatch.setattr(policy_store, "again", fail)

    answer = await in_force.reload("SIGHUP")

    kind = type(fault).__name__
    assert answer == {"ok": False, "policy": governed.policy.digest,
                      "findings": [f"an internal fault, {kind}; restart Governor to be sure"]}
    assert capsys.readouterr().err == (
        "governor: the policy was not reloaded (SIGHUP); the old one stays:\n"
        f"an internal fault, {kind}; restart Governor to be sure\n")
    assert in_force.governed is governed
