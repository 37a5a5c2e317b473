"""A command in `governor run` and what it has of its caller: terminal, signals, status, arguments, environment."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.network_hosts import needs_networks
from tests.e2e.origins import serving
from tests.e2e.run_place import ADDRESS, PUBLIC_ADDRESS, RunPlace, inside, needs_run_tools, run_place, summary

pytestmark = [pytest.mark.e2e, needs_networks, needs_run_tools]

POLICY = """\
version: 1
rules:
  - allow: the-api
    to: api.example.org
    address: 198.18.79.0/24
    methods: any
    except: {paths: ["/denied/**"]}
never:
  - to: [metadata, link-local, gist.example.org]
"""
GET = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}")
NOT_STARTED = 125


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[RunPlace]:
    chain, trusted = certificate
    names = {"api.example.org": ADDRESS, "gist.example.org": ADDRESS, "www.example.org": PUBLIC_ADDRESS}
    folder = tmp_path_factory.mktemp("commands")
    with run_place(folder, POLICY, names, trusted) as made, contextlib.ExitStack() as origins:
        with inside(made):
            for address in (ADDRESS, PUBLIC_ADDRESS):
                origins.enter_context(serving(chain=chain, place=(address, 443)))
        yield made


def quoted(place: RunPlace, *command: str, options: tuple[str, ...] = ("--quiet",)) -> str:
    """A run as a shell reads it."""
    return shlex.join(map(str, place.command("run", *options, "--policy", str(place.policy), "--", *command)))


@pytest.mark.parametrize(("tier", "script", "status"), [
    *(("netns", script, status) for script, status in (
        ("exit 0", 0), ("exit 125", 125), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137))),
    *((tier, script, status) for tier in ("bwrap", "env") for script, status in (
        ("exit 255", 255), ("kill -TERM $$", 143))),
])
def test_the_status_is_the_commands(place: RunPlace, tier: str, script: str, status: int) -> None:
    assert place.run("sh", "-c", script, options=("--tier", tier, "--quiet")).returncode == status


@pytest.mark.parametrize(("command", "status", "text"), [
    ("no-such-command", 127, "no-such-command: command not found"),
    ("./no-such-file", 127, "./no-such-file: no such file"),
    ("./plain", 126, "./plain: not executable"),
    ("/", 126, "/: a folder"),
])
def test_a_command_that_cannot_be_is_told_as_env_tells_it(place: RunPlace, command: str, status: int,
                                                          text: str) -> None:
    (place.work / "plain").write_text("text\n")

    done = place.run(command)

    assert (done.returncode, done.stderr.splitlines()[-1]) == (status, f"governor: {text}")


def test_a_command_that_is_not_executed_after_all_is_no_command_that_failed(place: RunPlace) -> None:
    script = place.work / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)

    assert place.run("./script", options=("--quiet",)).returncode == NOT_STARTED


def test_arguments_arrive_as_they_are(place: RunPlace) -> None:
    told = [b"two words", b"'\"$x`", b"", b"line\nbreak", b"\xff\xfe", "\u00e9".encode(), b"--json", b"--", b"-c",
            b"long " * 20_000]
    show = "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:])))"

    done = place.run(sys.executable, "-c", show, *told, options=("--quiet",), text=False)

    assert done.stdout == b"|".join(told), done.stderr


def test_the_environment_and_the_directory_are_the_callers(place: RunPlace) -> None:
    sub = place.work / "two words \u00e9"
    sub.mkdir()
    show = ("import json, os; print(os.getcwd()); print(os.environb[b'ODD']); print(os.environ['GOVERNOR_AGENT']); "
            "print(json.dumps(list(os.environ)))")

    done = place.run(sys.executable, "-c", show, options=("--quiet", "--agent", "coder-1"), cwd=sub,
                     env={"ODD": "a b\n\udcff", "PWD": str(sub)})

    *said, variables = done.stdout.splitlines()
    assert said == [str(sub), repr(b"a b\n\xff"), "coder-1"]
    assert set(place.environment) - set(json.loads(variables)) == {"GOVERNOR_HOME"}


def test_what_is_piped_in_goes_through_and_a_large_output_comes_back(place: RunPlace) -> None:
    content = os.urandom(20_000_000)

    done = place.run("cat", options=("--quiet",), input=content, text=False)

    assert done.stdout == content


def test_a_closed_reader_ends_the_command_as_outside(place: RunPlace) -> None:
    done = subprocess.run(["bash", "-c", f"{quoted(place, 'yes')} | head -1; echo ${{PIPESTATUS[0]}}"], timeout=60,
                          capture_output=True, text=True, env=place.environment, cwd=place.work)

    assert done.stdout == "y\n141\n", done.stderr


def test_standard_streams_may_be_closed(place: RunPlace) -> None:
    words = quoted(place, "sh", "-c", "echo ok >done; exit 7")

    done = subprocess.run(["sh", "-c", f"{words} <&- >&- 2>&-"], env=place.environment, cwd=place.work, timeout=60)

    assert done.returncode == 7
    assert (place.work / "done").read_text() == "ok\n"


def test_descriptors_of_the_caller_are_not_inherited(place: RunPlace) -> None:
    with open(place.work / "plain", "w") as file:
        done = place.run("sh", "-c", "ls -l /proc/self/fd", options=("--quiet",), pass_fds=[file.fileno()])

    assert "plain" not in done.stdout
    assert len(done.stdout.splitlines()) <= 5, done.stdout


@pytest.mark.parametrize(("tier", "number"), [
    *(("netns", number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)),
    ("bwrap", signal.SIGTERM), ("env", signal.SIGTERM),
])
def test_signals_reach_the_command(place: RunPlace, tier: str, number: signal.Signals) -> None:
    caught = f"trap 'echo caught; exit 9' {number.name[3:]}; echo ready; while :; do sleep 0.1; done"

    with started(place, "sh", "-c", caught, options=("--tier", tier, "--quiet")) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "caught\n"
        assert process.wait(20) == 9


def test_what_the_command_left_behind_ends_with_it(place: RunPlace) -> None:
    mark = f"4{os.getpid() % 1000:03}5"

    done = place.run("sh", "-c", f"setsid nohup sleep {mark} >/dev/null 2>&1 & sleep 0.2", options=("--quiet",))

    assert done.returncode == 0
    assert subprocess.run(["pgrep", "-f", f"sleep {mark}"], capture_output=True).returncode == 1


@contextmanager
def started(place: RunPlace, *command: str, options: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    whole = place.command("run", "--policy", str(place.policy), *options, "--", *command)
    with subprocess.Popen(whole, stdout=subprocess.PIPE, text=True, env=place.environment,
                          cwd=place.work) as process:
        # A line that never comes ends with the process.
        too_late = threading.Timer(60, process.kill)
        too_late.start()
        try:
            yield process
        finally:
            too_late.cancel()
            process.kill()


class Terminal:
    """A terminal with a command on it, and what it shows."""

    def __init__(self, place: RunPlace, *command: str) -> None:
        self.shown = ""
        self.descriptor, theirs = pty.openpty()
        self.resize(33, 91)
        # It makes the terminal the command's own, which takes a session.
        self.process = subprocess.Popen(["setsid", "--ctty", *command], stdin=theirs, stdout=theirs, stderr=theirs,
                                        cwd=place.work,
                                        env={**place.environment, "TERM": "dumb", "PS1": "prompt> "})
        os.close(theirs)

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def until(self, pattern: str, seconds: float = 20.0) -> str:
        """What is shown up to the pattern, which is taken away with it."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown)):
            ready, _, _ = select.select([self.descriptor], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{pattern} never came: {self.shown}"
            try:
                self.shown += os.read(self.descriptor, 65536).decode(errors="replace").replace("\r", "")
            except OSError:
                raise AssertionError(f"the terminal was closed before {pattern}: {self.shown}") from None
        shown, self.shown = self.shown[:found.end()], self.shown[found.end():]
        return shown

    def end(self) -> int:
        """The status once it has ended."""
        with suppress(OSError):
            while select.select([self.descriptor], [], [], 20)[0]:
                self.shown += os.read(self.descriptor, 65536).decode(errors="replace").replace("\r", "")
        return self.process.wait(20)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.descriptor)


@pytest.fixture
def terminal(place: RunPlace) -> Iterator[Terminal]:
    words = place.command("run", "--policy", str(place.policy), "--quiet", "--", "bash", "--norc", "--noediting", "-i")
    made = Terminal(place, *map(str, words))
    yield made
    made.close()


def test_a_shell_on_a_terminal_is_as_outside(terminal: Terminal) -> None:
    start = terminal.until("prompt> ")
    assert "job control" not in start
    terminal.type("tty >/dev/null && stty size\n")
    assert "33 91" in terminal.until("91\n.*prompt> ")
    terminal.type("sleep 100\n")
    time.sleep(0.5)
    terminal.type("\x03")
    terminal.until("prompt> ")
    terminal.type("echo status $?\n")
    terminal.until("status 130\n")
    terminal.type("sleep 100\n")
    time.sleep(0.5)
    terminal.type("\x1a")
    terminal.until("Stopped")
    terminal.type("fg\n")
    terminal.until("fg\n.*sleep 100\n")
    time.sleep(0.5)
    terminal.type("\x03")
    terminal.until("prompt> ")
    terminal.resize(20, 77)
    terminal.type("stty size\n")
    terminal.until("20 77\n")
    terminal.type("exit 5\n")

    assert terminal.end() == 5


def test_the_callers_shell_can_stop_a_run_and_go_on_with_it(place: RunPlace) -> None:
    made = Terminal(place, "bash", "--norc", "--noediting", "-i")
    try:
        made.until("prompt> ")
        words = quoted(place, "sh", "-c", "echo began; sleep 2; echo over")
        made.type(words + "\n")
        made.until("began\n")
        made.type("\x1a")
        made.until("Stopped")
        made.type("fg\n")
        made.until("over\n")
        made.type("echo status $?\n")
        made.until("status 0\n")
        made.type(words.replace("sleep 2", "sleep 100") + "\n")
        made.until("began\n")
        made.type("\x03")
        made.until("prompt> ")
        made.type("echo status $?\n")
        made.until("status 130\n")
        made.type("exit\n")
        made.end()
    finally:
        made.close()


@pytest.mark.parametrize(("path", "then", "options", "status"), [
    pytest.param("denied/x", "", (), 0, id="not asked"),
    pytest.param("denied/x", "", ("--fail-on", "deny"), 1, id="refused"),
    pytest.param("x", "", ("--fail-on", "deny"), 0, id="nothing refused"),
    pytest.param("denied/x", "; exit 3", ("--fail-on", "deny"), 3, id="the command's own comes first"),
])
def test_a_refusal_makes_the_status_1_where_that_is_asked(place: RunPlace, path: str, then: str,
                                                          options: tuple[str, ...], status: int) -> None:
    script = f"{' '.join(GET)} https://api.example.org/{path}{then}"

    assert place.run("sh", "-c", script, options=options).returncode == status


def test_the_summary_is_one_object_of_json_where_that_is_asked(place: RunPlace) -> None:
    done = place.run("sh", "-c", f"{' '.join(GET)} https://api.example.org/denied/x; echo err >&2", options=("--json",))
    told = summary(done.stderr)

    assert done.stdout == "403"
    assert done.stderr.startswith("err\n{\n")
    assert (told["denied"], told["status"], told["tier"], told["agent"]) == (1, 0, "netns", "local")


def test_quiet_says_nothing(place: RunPlace) -> None:
    assert place.run(*GET, "https://api.example.org/denied/x", options=("--quiet",)).stderr == ""


def test_a_trial_lets_pass_what_would_be_refused_but_never_what_is_never(place: RunPlace) -> None:
    script = "; ".join(f"{' '.join(GET)} https://{where}" for where in
                       ("www.example.org/x", "gist.example.org/x"))

    done = place.run("sh", "-c", script, options=("--observe",))

    assert done.stdout.startswith("200"), done.stderr
    assert "200200" not in done.stdout


@pytest.mark.parametrize(("words", "answers"), [
    ("GET www.example.org/v1/**", ("200", "403")), ("www.example.org/v1/**", ("200", "403")),
    ("GET,POST https://www.example.org", ("200", "200")), ("any www.example.org/v1/me", ("200", "403")),
])
def test_a_policy_in_a_few_words(place: RunPlace, words: str, answers: tuple[str, str]) -> None:
    script = f"{' '.join(GET)} https://www.example.org/v1/me; echo; {' '.join(GET)} https://www.example.org/v2/me"

    done = place.run("sh", "-c", script, options=("--allow", words, "--quiet"), policy=False)

    assert tuple(done.stdout.split()) == answers, done.stderr


def test_policies_are_tiers_of_which_each_must_allow(place: RunPlace) -> None:
    second = place.folder / "second.yaml"
    second.write_text(POLICY.replace("/denied/**", "/v1/**").replace("the-api", "less-of-it"))
    script = "; echo; ".join(f"{' '.join(GET)} https://api.example.org/{path}" for path in ("x", "v1/x", "denied/x"))

    done = place.run("sh", "-c", script, options=("--policy", str(second), "--quiet"))

    assert done.stdout.split() == ["200", "403", "403"], done.stderr


@pytest.mark.parametrize(("text", "line"), [
    pytest.param("version: 1\nrules:\n  - alow: x\n    to: a.example.org\n", ":3:", id="a word that is none"),
    pytest.param("version: [\n", ":", id="no YAML"),
    pytest.param("", ":", id="nothing"),
])
def test_a_policy_with_a_mistake_is_told_with_its_place_and_nothing_starts(place: RunPlace, text: str,
                                                                           line: str) -> None:
    wrong = place.folder / "wrong.yaml"
    wrong.write_text(text)

    done = place.run("touch", "started", options=("--policy", str(wrong)), policy=False)

    assert done.returncode == NOT_STARTED
    assert done.stderr.startswith("governor: ")
    assert f"wrong.yaml{line}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place.work / "started").exists()


def test_a_home_whose_parent_is_not_there_is_made(place: RunPlace, tmp_path: Path) -> None:
    home = tmp_path / "not" / "yet" / "home"

    assert place.run("true", options=("--home", str(home), "--quiet")).returncode == 0
    assert (home / "audit").is_dir()


@pytest.mark.parametrize("home", [".", "below"])
def test_a_home_that_the_command_could_reach_is_refused(place: RunPlace, home: str) -> None:
    done = place.run("touch", "started", options=("--home", str(place.work / home)))

    assert done.returncode == NOT_STARTED
    assert "working directory" in done.stderr
    assert not (place.work / "started").exists()


def test_neither_home_is_needed(place: RunPlace) -> None:
    environment = {name: value for name, value in place.environment.items() if name != "HOME"}

    done = subprocess.run(["sh", "-c", quoted(place, "sh", "-c", "echo $HOME")], env=environment, cwd=place.work,
                          capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_the_folder_for_temporary_files_may_have_spaces(place: RunPlace, tmp_path: Path) -> None:
    folder = tmp_path / "two words"
    folder.mkdir()

    done = place.run(*GET, "https://api.example.org/x", options=("--quiet",), env={"TMPDIR": str(folder)})

    assert (done.stdout, done.stderr) == ("200", "")
    assert list(folder.iterdir()) == []


def test_a_directory_that_is_gone_is_told(place: RunPlace) -> None:
    words = f"mkdir gone && cd gone && rmdir ../gone && {quoted(place, 'true')}"

    done = subprocess.run(["sh", "-c", words], capture_output=True,
                          text=True, env=place.environment, cwd=place.work, timeout=60)

    assert done.returncode == NOT_STARTED
    said = "the working directory is not there any more (No such file or directory); run it elsewhere"
    assert done.stderr.splitlines()[-1] == f"governor: {said}"


def test_a_run_in_a_run_is_refused(place: RunPlace) -> None:
    inner = place.command("run", "--", "true")[len(place.outside()):]

    done = place.run(*inner, options=("--quiet",))

    assert done.returncode == NOT_STARTED
    assert done.stderr == "governor: this command is in a sandbox of Governor's already\n"


def test_nothing_is_coloured_where_that_is_not_wanted(place: RunPlace) -> None:
    made = Terminal(place, "sh", "-c", quoted(place, "true", options=("--tier", "env")))
    made.end()
    made.close()

    assert "\x1b[" not in made.shown
    assert "advice, not enforcement" in made.shown


def test_nothing_of_a_run_is_left(place: RunPlace, tmp_path: Path) -> None:
    place.run("true", options=("--quiet",), env={"TMPDIR": str(tmp_path)})

    assert list(tmp_path.iterdir()) == []
    assert not list((place.home / "runs").iterdir())
