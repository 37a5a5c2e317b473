"""The command line: which verbs there are, what they cost to start, and how everything ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from addons import cli
from addons.errors import GovernorError, StartCode, StartRefused
from kernel.errors import CanonicalError
from kernel.version import VERSION

ROOT = Path(cli.__file__).resolve().parents[1]
HELP_OF = "import sys; from addons.cli import run; run([*{}, '--help'])"


@pytest.fixture
def verb(monkeypatch):
    """Make `status` raise or return what the test wants."""
    def replace(outcome):
        @click.command()
        def status():
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(cli.VerbGroup, "get_command", lambda *_: status)

    return replace


def in_a_process(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


OF_A_BUCKET = frozenset({"selftest", "iam"})
"""Verbs that ask about a bucket, which belongs to no home."""


def leaves(command: click.Command) -> list[click.Command]:
    """The verbs in a group, and in the groups in it."""
    if not isinstance(command, click.Group):
        return [command]
    ctx = click.Context(command)
    return [leaf for name in command.list_commands(ctx) for leaf in leaves(command.get_command(ctx, name))]


@pytest.mark.parametrize("name", sorted(cli.VERBS))
def test_every_verb_that_is_listed_is_built_teaches_and_takes_a_home(name):
    command = cli.governor.get_command(click.Context(cli.governor), name)

    assert command.help
    for leaf in leaves(command):
        takes_none = name == "policy" or leaf.name in OF_A_BUCKET
        assert any("--home" in parameter.opts for parameter in leaf.params) or takes_none, leaf.name


def test_help_lists_the_verbs_and_the_exit_statuses_without_importing_any(capsys):
    imported = "[name for name in sys.modules if 'addons.verbs.' in name]"
    shown = in_a_process(f"{HELP_OF.format([])}; print({imported})").stdout

    assert all(name in shown for name in cli.VERBS)
    assert "Exit status" in shown
    assert shown.rstrip().endswith("[]")


def test_verifying_a_log_does_not_load_mitmproxy():
    shown = in_a_process(f"{HELP_OF.format(['audit', 'verify'])}; print('mitmproxy' in sys.modules)").stdout

    assert shown.rstrip().endswith("False")


def test_the_version_is_the_kernels(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"governor {VERSION}\n"


@pytest.mark.parametrize("arguments", [["statsu"], ["status", "--no-such-option"]], ids=["verb", "option"])
def test_wrong_usage_ends_with_2(arguments, capsys):
    assert cli.run(arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize(("outcome", "status", "said"), [
    pytest.param(None, 0, "", id="nothing returned"),
    pytest.param(5, 5, "", id="a status returned"),
    pytest.param(click.exceptions.Exit(3), 3, "", id="an exit"),
    pytest.param(GovernorError("the log is elsewhere"), 1, "governor: the log is elsewhere\n", id="an adapter's error"),
    pytest.param(CanonicalError("a float"), 1, "governor: a float\n", id="a kernel's error"),
    pytest.param(StartRefused(StartCode.LANE_BUSY, "main is taken"), 1,
                 "governor: refused to start: LANE_BUSY: main is taken\n", id="a refused start"),
    pytest.param(KeyboardInterrupt(), 130, "governor: interrupted\n", id="ctrl-c"),
])
def test_each_ending_has_its_status_and_its_line(verb, capsys, outcome, status, said):
    verb(outcome)

    assert cli.run(["status"]) == status
    assert capsys.readouterr().err.lstrip("\n") == said


def test_a_fault_of_our_own_is_70_and_one_line_that_says_where(verb, capsys):
    verb(ZeroDivisionError("division by zero"))

    assert cli.run(["status"]) == 70
    said = capsys.readouterr().err
    assert said.startswith("governor: internal fault: ZeroDivisionError: division by zero (")
    assert said.count("\n") == 1


def test_a_reader_that_leaves_ends_it_quietly():
    program = "from addons.cli import main; main(['--help'])"
    writer = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.close()

    assert writer.stderr.read() == b""
    assert writer.wait() == 1


def test_a_kernel_of_another_folder_is_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("addons.origin_check.kernel.__file__", str(tmp_path / "kernel" / "__init__.py"))

    assert cli.run(["--version"]) == 1
    assert capsys.readouterr().err.startswith("governor: refused to start: VERSION: ")
