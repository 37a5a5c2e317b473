"""`governor serve`: where the enforcer stands, and the status it ends with. Traffic is in tests/e2e."""

from __future__ import annotations

import pytest
from mitmproxy import options

from addons import serve as module
from addons.serve import GovernedMaster, Stage, serve


@pytest.fixture
def ends(monkeypatch):
    """Let mitmproxy's run end as the test wants, before or after the ports were open."""
    def replace(outcome, *, stage):
        class Ended:
            status = module.ASKED_TO_STOP

        def run(master, parser, arguments, extra):
            master(options.Options()).stage = stage
            if outcome is not None:
                raise outcome

        monkeypatch.setattr(module, "GovernedMaster", lambda opts: Ended())
        monkeypatch.setattr(module, "run", run)

    return replace


@pytest.mark.parametrize(("outcome", "stage", "status"), [
    pytest.param(None, Stage.SERVING, 0, id="asked to stop"),
    pytest.param(SystemExit(0), Stage.SERVING, 0, id="an exit that means well"),
    pytest.param(SystemExit(1), Stage.STARTING, 1, id="the enforcer refused before the ports were open"),
    pytest.param(SystemExit(1), Stage.SERVING, 3, id="ended by a fault while it served"),
    pytest.param(SystemExit(1), Stage.READING_OPTIONS, 2, id="mitmproxy knows no such value of an option"),
    pytest.param(RuntimeError("the loop broke"), Stage.SERVING, 3, id="an exception while it served"),
    pytest.param(RuntimeError("the loop broke"), Stage.STARTING, 3, id="an exception before"),
])
def test_the_status_says_how_it_ended(ends, capsys, outcome, stage, status):
    ends(outcome, stage=stage)

    assert serve([]) == status
    assert "Traceback" not in capsys.readouterr().err


async def test_the_enforcer_stands_right_before_the_scripts_and_is_configured_with_everything(monkeypatch, tmp_path):
    seen = []

    class Recording:
        name = "enforcer"

        def load(self, loader):
            seen.append("load")

        def configure(self, updated):
            seen.append(set(updated))

    monkeypatch.setattr(module, "Enforcer", Recording)
    master = GovernedMaster(options.Options(confdir=str(tmp_path)))
    # What a master that is never run would leave in this process's logging.
    master._termlog_addon.uninstall()
    master._legacy_log_events.uninstall()
    master.addons.get("errorcheck").finish()
    master._admit(master.enforcer)
    chain = master.addons.chain

    assert chain.index(master.enforcer) + 1 == chain.index(master.addons.get("scriptloader"))
    assert seen == ["load", set(master.options.keys())]
