"""`governor serve`: where the enforcer stands, and the status it ends with. Traffic is in tests/e2e."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from mitmproxy import options

from addons import serve as module
from addons.serve import GovernedMaster, Stage, serve
from addons.verbs import service


@pytest.fixture(autouse=True)
def own_signals():
    """What `serve` ignores from its first line on would be ignored by every process that later tests start."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


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


def test_a_reload_asked_for_before_anything_is_read_does_not_end_the_start(monkeypatch):
    found = []
    monkeypatch.setattr(module, "serve", lambda arguments, workers: found.append(signal.getsignal(signal.SIGHUP)) or 0)

    assert CliRunner().invoke(service.serve, []).exit_code == 0
    assert found == [signal.SIG_IGN]


@pytest.mark.parametrize("arguments", [
    pytest.param(["--home", "{}"], id="an option of its own"),
    pytest.param(["--set", "governor_home={}"], id="one of mitmdump's"),
    pytest.param(["--set=governor_home={}"], id="in one word"),
    pytest.param(["--set=governor_home=/elsewhere", "--set=governor_home={}"], id="the last one"),
])
def test_a_loss_is_accepted_in_the_home_that_is_served(monkeypatch, tmp_path, arguments):
    homes = []
    monkeypatch.setenv("GOVERNOR_HOME", str(tmp_path / "the default"))
    monkeypatch.setattr(module, "serve", lambda arguments, workers: 0)
    monkeypatch.setattr(service, "accepted", lambda home, *rest, **more: homes.append(home) or SimpleNamespace())
    monkeypatch.setattr(service, "loss_words", lambda succession: "")
    given = [argument.format(tmp_path / "named") for argument in arguments]

    assert CliRunner().invoke(service.serve, ["--accept-loss", "the disk failed", *given]).exit_code == 0
    assert homes == [tmp_path / "named"]


async def test_who_is_asked_to_stop_before_the_ports_are_open_ends_in_order(monkeypatch, tmp_path):
    ended = []

    class Recording:
        name = "enforcer"

        def done(self):
            ended.append("in order")

    class StoppedAtOnce:
        host = None

        async def begin(self, options):
            master.shutdown()

        async def opened(self):
            pass

    monkeypatch.setattr(module, "Enforcer", lambda host: Recording())
    master = GovernedMaster(options.Options(confdir=str(tmp_path), server=False), StoppedAtOnce())
    await master.run()

    assert ended == ["in order"]
