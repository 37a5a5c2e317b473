"""How attempts are run and judged; what each sees of a place is in tests/e2e/test_attempts.py."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from addons.attempts import descriptors, mounts, name_questions, packets, reaching, running, speaking
from addons.attempts.attempt import Attempt, Result, Seen, closed, not_here, opened, refused, silent, worst
from addons.attempts.every import ATTEMPTS, FAMILIES
from addons.attempts.reaching import Contact, Reached
from addons.attempts.running import run
from addons.attempts.surroundings import Surroundings
from addons.sandbox.held import OUR_CODE, ROOT
from addons.verbs.attempts import tell

HERE = Surroundings((), (), (), None, None, ())


def _attempt(name: str, take: object) -> Attempt:
    return Attempt(name, "test", "a way", "nothing", take)  # type: ignore[arg-type]


def _seen(take: object) -> Seen:
    ((_, seen),) = run([_attempt("one", take)], HERE)
    return seen


def _end(status: int) -> Seen:
    os._exit(status)


def _die(number: int) -> Seen:
    os.kill(os.getpid(), number)
    return opened("it lives")


def test_every_attempt_has_a_name_of_its_own_and_says_its_way_and_what_is_expected():
    names = Counter(attempt.name for attempt in ATTEMPTS)

    assert len(ATTEMPTS) >= 75
    assert [name for name, count in names.items() if count > 1] == []
    assert [attempt.name for attempt in ATTEMPTS if not re.fullmatch(r"[a-z0-9.-]+", attempt.name)] == []
    assert [attempt.name for attempt in ATTEMPTS if not (attempt.way and attempt.expected)] == []
    assert all(family.attempts for family in FAMILIES)


def test_every_file_of_attempts_is_among_all_attempts():
    folder = Path(running.__file__).parent
    with_family = {path.stem for path in folder.glob("*.py") if "FAMILY = Family(" in path.read_text()}
    named = set(re.findall(r"(\w+)\.FAMILY", (folder / "every.py").read_text()))

    assert named == with_family


def test_attempts_need_the_standard_library_alone():
    # -S: no package that is installed can be imported.
    program = OUR_CODE + "from addons.attempts import every, running, surroundings; print(len(every.ATTEMPTS))"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", program, str(ROOT)], capture_output=True, text=True)

    assert (ran.stdout.strip(), ran.stderr) == (str(len(ATTEMPTS)), "")


def test_answers_come_in_the_order_of_the_attempts():
    ended, ends = os.pipe()

    def later(_: object) -> Seen:
        os.read(ended, 1)
        return closed("slow")

    def first(_: object) -> Seen:
        os.write(ends, b"!")
        return opened("quick")

    taken = run([_attempt("slow", later), _attempt("quick", first)], HERE)
    os.close(ended)
    os.close(ends)

    assert [(attempt.name, seen) for attempt, seen in taken] == [("slow", closed("slow")), ("quick", opened("quick"))]


def test_what_a_filter_kills_is_closed():
    assert _seen(lambda _: _die(signal.SIGSYS)).result is Result.CLOSED


def test_what_ends_without_an_answer_is_neither_open_nor_closed():
    assert _seen(lambda _: _end(3)).result is Result.NOT_POSSIBLE
    assert _seen(lambda _: _die(signal.SIGKILL)).result is Result.NOT_POSSIBLE


def test_an_answer_of_any_length_is_told():
    seen = _seen(lambda _: closed("\N{BELL}" * 70_000))

    assert seen.what == "\N{BELL}" * len(seen.what)
    assert len(seen.what) > 100


def test_what_was_seen_cannot_speak_to_the_terminal(capsys):
    tell("netns", [(_attempt("one", opened), opened("process 7 (\x1b[2Jnothing is open)"))], everything=False)

    said = capsys.readouterr().out
    assert "\x1b[2J" not in said
    assert r"(\x1b[2Jnothing is open)" in said


def test_an_attempt_that_fails_says_so():
    assert _seen(lambda _: 1 // 0) == not_here(
        "the attempt itself failed: ZeroDivisionError: integer division or modulo by zero"
    )


def test_an_attempt_that_hangs_is_ended_with_all_that_it_started(monkeypatch):
    monkeypatch.setattr(running, "EACH_SECONDS", 0.3)

    lives, living = os.pipe()

    def hang(_: object) -> Seen:
        os.fork()
        os.write(living, b"!")
        time.sleep(30)
        return opened("at last")

    seen = _seen(hang)
    os.close(living)
    with os.fdopen(lives, "rb") as heard:
        both = heard.read(2)
        ended = select.select([heard], [], [], 5)[0] and heard.read() == b""

    assert seen == not_here("it did not end within 0.3 s")
    assert both == b"!!"
    assert ended


def test_what_an_attempt_does_to_its_process_stays_there():
    def spoil(_: object) -> Seen:
        os.chdir("/")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return closed("spoilt")

    before = os.getcwd(), signal.getsignal(signal.SIGTERM)
    _seen(spoil)

    assert (os.getcwd(), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(
    ("several", "told"),
    [
        pytest.param([closed("a"), opened("b"), silent("c")], opened("b"), id="an open one outweighs all"),
        pytest.param([closed("a"), not_here("b"), silent("c")], silent("c"), id="then the weakest evidence"),
        pytest.param([not_here("b"), closed("a")], closed("a"), id="then a refusal"),
        pytest.param([not_here("b")], not_here("b"), id="then nothing"),
        pytest.param([], not_here("nothing"), id="and without any there is nothing"),
    ],
)
def test_of_several_ways_the_worst_is_told(several, told):
    assert worst(several, "nothing") == told


@pytest.mark.parametrize(
    ("number", "result"),
    [
        pytest.param(errno.EPERM, Result.CLOSED, id="EPERM"),
        pytest.param(errno.ENETUNREACH, Result.CLOSED, id="ENETUNREACH"),
        pytest.param(errno.EAFNOSUPPORT, Result.NOT_POSSIBLE, id="EAFNOSUPPORT"),
        pytest.param(errno.EPROTONOSUPPORT, Result.NOT_POSSIBLE, id="EPROTONOSUPPORT"),
    ],
)
def test_a_refusal_is_closed_and_a_lack_is_not_possible(number, result):
    assert refused(OSError(number, "")).result is result


NOBODY = "198.51.100.253"
TAKEN, RESET = Contact.ANSWERED, Contact.ARRIVED


@pytest.mark.parametrize(
    ("of_nobody", "of_target", "result"),
    [
        pytest.param(Contact.SILENT, TAKEN, Result.OPEN, id="only the target takes it"),
        pytest.param(TAKEN, TAKEN, Result.CLOSED, id="somebody takes it for all, and is judged"),
        pytest.param(Contact.SILENT, RESET, Result.OPEN, id="the target itself resets: it was reached"),
        pytest.param(RESET, RESET, Result.CLOSED, id="somebody resets for all"),
        pytest.param(Contact.FORBIDDEN, Contact.FORBIDDEN, Result.CLOSED, id="forbidden on the way"),
        pytest.param(Contact.SILENT, Contact.SILENT, Result.CLOSED, id="silence"),
    ],
)
def test_an_address_that_nobody_has_tells_who_answers(of_nobody, of_target, result):
    def found(address: str, contact: Contact) -> Reached:
        return Reached(address, contact, "x", socket.socket() if contact is TAKEN else None)

    reached = [found(NOBODY, of_nobody), found("203.0.113.10", of_target)]

    seen = reaching.judged(reached, NOBODY, 22, lambda *_: closed("Governor"))

    assert seen.result is result
    assert seen.silent is (of_target is Contact.SILENT)


def _error(kind: int, code: int, offender: str) -> bytes:
    return struct.pack("=IBBBBII", 113, 2, kind, code, 0, 0, 0) + struct.pack(
        "=HH4s8x", socket.AF_INET, 0, socket.inet_aton(offender))


@pytest.mark.parametrize(
    ("kind", "code", "offender", "contact"),
    [
        pytest.param(3, 3, "203.0.113.10", Contact.ARRIVED, id="port unreachable, says the destination"),
        pytest.param(3, 2, "203.0.113.10", Contact.ARRIVED, id="protocol unreachable, says the destination"),
        pytest.param(3, 3, "203.0.113.1", Contact.FORBIDDEN, id="port unreachable, says somebody on the way"),
        pytest.param(3, 13, "203.0.113.1", Contact.FORBIDDEN, id="prohibited"),
        pytest.param(3, 13, "203.0.113.10", Contact.FORBIDDEN, id="prohibited, in the destination's name"),
    ],
)
def test_who_sent_an_icmp_error_decides(kind, code, offender, contact):
    assert reaching._understood(_error(kind, code, offender), "203.0.113.10").contact is contact


@pytest.mark.parametrize(
    ("said", "governed", "interceptor", "result", "is_silent"),
    [
        pytest.param(
            b"HTTP/1.1 403 Forbidden by Governor: NO_RULE\r\n", False, True, Result.CLOSED, False, id="its 403"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", False, True, Result.OPEN, False, id="another answer"),
        pytest.param(b"HTTP/1.1 403 Forbidden\r\n\r\n", False, True, Result.OPEN, False, id="somebody else's 403"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", True, True, Result.CLOSED, False, id="an answer through Governor"),
        pytest.param(b"", True, True, Result.CLOSED, False, id="its certificate, and the end"),
        pytest.param(b"", False, True, Result.CLOSED, True, id="ended without a byte by somebody on the way"),
        pytest.param(b"", False, False, Result.OPEN, False, id="taken by the address itself"),
    ],
)
def test_what_comes_back_tells_whether_governor_is_there(said, governed, interceptor, result, is_silent):
    seen = speaking.Answer(said, governed).seen("there", interceptor)

    assert (seen.result, seen.silent) == (result, is_silent)


@pytest.mark.parametrize(("code", "result"), [(5, Result.CLOSED), (0, Result.OPEN), (3, Result.OPEN), (2, Result.OPEN)])
def test_only_a_refused_question_is_closed(code, result):
    reply = name_questions.question("a.example.org")

    assert name_questions.meaning("there", reply[:3] + bytes((0x80 | code,)) + reply[4:]).result is result


def test_a_folder_that_came_with_the_start_is_open():
    folder = os.open("/usr", os.O_RDONLY | os.O_DIRECTORY)
    before = _seen(descriptors.inherited)
    os.set_inheritable(folder, True)
    after = _seen(descriptors.inherited)
    os.close(folder)

    assert before.result is Result.CLOSED
    assert after == opened(f"descriptor {folder} is the folder /usr: all below it can be opened")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its root folder")
def test_a_working_folder_outside_of_the_root_is_open(tmp_path):
    def left(here: Surroundings) -> Seen:
        os.chroot(tmp_path)
        return mounts.upwards(here)

    assert _seen(mounts.upwards).result is Result.CLOSED
    assert _seen(left).result is Result.OPEN


def test_packets_made_by_hand_have_right_checksums():
    assert packets.checksum(packets.echo(ipv6=False)) == 0
    assert packets.checksum(packets.timestamp()) == 0
    assert packets.checksum(packets.igmp_report("239.255.255.250")) == 0


def test_targets_of_ones_own_take_the_place_of_well_known_addresses():
    here = Surroundings.read(
        ("203.0.113.10", "2001:db8::10"), {"https_proxy": "http://127.0.0.1:3128", "GOVERNOR_TIER": "bwrap"})

    assert (here.targets, here.targets_6) == (("203.0.113.10",), ("2001:db8::10",))
    assert (here.proxy, here.tier) == (("127.0.0.1", 3128), "bwrap")


def test_a_firewall_that_resets_for_every_address_is_not_taken_for_the_destination():
    reached = [Reached(NOBODY, RESET, "reset"), Reached("203.0.113.10", RESET, "reset")]

    (alone,) = reaching.compared(reached[1:], NOBODY)
    (beside,) = reaching.compared(reached, NOBODY)

    assert (alone.contact, beside.contact) == (Contact.ARRIVED, Contact.FORBIDDEN)
