"""A C2SP witness as an anchor: it cosigns what grew and nothing else, and whatever it answers is bounded and told."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from addons import durable
from addons import lane as lane_module
from addons.anchors import exchange
from addons.anchors.history import History
from addons.anchors.protocol import AnchorError
from addons.anchors.submission import submission_key
from addons.anchors.witness import AnchorConflict, WitnessAnchor
from addons.errors import StartRefused
from addons.home import Home
from addons.keys import verifies
from kernel.cosignature import WitnessKey, cosignatures, parse_witness_key
from kernel.note import (
    VerifierKey,
    checkpoint_body,
    lane_name,
    open_note,
    opened,
    parse_verifier_key,
    sign,
)
from tests.addons.anchored_logs import GrowingLog, introduce, size_of
from tests.addons.logs import crashed_copy, entries, segments
from tests.addons.reference_witness import Witness, serving
from tests.conftest import scaled
from tests.e2e.origins import make_certificate

ROOT = Path(__file__).parents[2]


@pytest.fixture
def log(home: Home) -> Iterator[GrowingLog]:
    log = GrowingLog(home)
    yield log
    log.close()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    with serving(Witness("w.example.org", tmp_path / "witness.json")) as witness:
        yield witness


def anchor(home: Home, witness: Witness) -> WitnessAnchor:
    """The anchor as a process has it that has just started."""
    return WitnessAnchor(witness.url, parse_witness_key(witness.key), home, History(home.paths.lanes))


def held(witness: Witness, home: Home) -> int:
    return witness.heads().get(lane_name(home.log_id, "main"), [0])[0]


def test_a_head_is_cosigned_and_what_the_witness_said_is_kept(home, log, witness):
    introduce(witness, home)
    note = log.grown(3)
    receipt = anchor(home, witness).publish("main", note)
    kept = list(anchor(home, witness).notes())

    key = parse_witness_key(witness.key)
    found = [cosignatures(text, [key], verifies) for text in kept]
    assert (receipt.kind, receipt.target, receipt.lane, receipt.size) == ("witness", witness.url, "main", size_of(note))
    assert held(witness, home) == size_of(note)
    assert [opened(text)[0] for text in kept] == [opened(note)[0]]
    assert [each.line for (each,) in found] == [receipt.proof["cosignature"]]
    assert abs(int(receipt.proof["time"]) - time.time()) < 60
    # The lane's own signature is still on it, and the submission key's is not needed any more.
    lane_key = parse_verifier_key(entries(home)[1]["key"])
    assert open_note(kept[0], [lane_key], verifies) == opened(note)[0]


@pytest.mark.parametrize("steps", [[1] * 12, [1, 2, 3, 5, 8, 13, 21, 34], [300, 1, 700, 1500]], ids=str)
def test_every_growth_is_proved_across_segments_and_restarts(monkeypatch, home, witness, steps):
    monkeypatch.setattr(lane_module, "SEGMENT_BYTES", 2048)
    log, running = GrowingLog(home), anchor(home, witness)
    introduce(witness, home)
    for number, more in enumerate(steps):
        note = log.grown(more)
        if number % 3 == 2:
            running = anchor(home, witness)

        assert running.publish("main", note).size == size_of(note) == held(witness, home)
    assert len(segments(home)) > 2
    log.close()


def test_the_same_head_can_be_cosigned_again(home, log, witness):
    introduce(witness, home)
    note = log.grown()
    receipts = [anchor(home, witness).publish("main", note) for _ in range(2)]

    assert [receipt.size for receipt in receipts] == [size_of(note)] * 2


def test_a_lost_receipt_is_made_good_by_the_size_that_the_witness_names(home, log, witness):
    introduce(witness, home)
    first = log.grown(5)
    anchor(home, witness).publish("main", first)
    for path in home.paths.receipts.iterdir():
        path.unlink()
    second = log.grown(5)
    receipt = anchor(home, witness).publish("main", second)

    assert receipt.size == size_of(second) == held(witness, home)
    asked = [request.partition(b"\n")[0].decode() for request in witness.asked[1:]]
    assert asked == ["old 0", f"old {size_of(first)}"]


def test_a_receipt_that_was_made_up_is_not_believed(home, log, witness):
    introduce(witness, home)
    note = log.grown(5)
    body = checkpoint_body(lane_name(home.log_id, "main"), 10**6, bytes(32))
    made_up = sign(body, "x", bytes(32), lambda _: bytes(64))
    (home.paths.receipts / f"{parse_witness_key(witness.key).kid}-main.note").write_text(made_up)

    assert anchor(home, witness).publish("main", note).size == size_of(note)


def test_a_kill_between_cosignature_and_receipt_loses_nothing(home, log, witness):
    introduce(witness, home)
    first, second = log.grown(4), log.grown(4)
    anchor(home, witness).publish("main", first)
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from addons.anchors.history import History
        from addons.anchors.note_file import NoteFile
        from addons.anchors.witness import WitnessAnchor
        from addons.home import Home
        from kernel.cosignature import parse_witness_key
        home = Home.open(Path(sys.argv[1]))
        NoteFile.append = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        key = parse_witness_key(sys.argv[3])
        WitnessAnchor(sys.argv[2], key, home, History(home.paths.lanes)).publish("main", sys.stdin.read())
    """), str(home.paths.folder), witness.url, witness.key], input=second, text=True, cwd=ROOT, timeout=60)
    third = log.grown(4)
    before = [size_of(text) for text in anchor(home, witness).notes()]
    receipt = anchor(home, witness).publish("main", third)

    assert killed.returncode == -signal.SIGKILL
    assert before == [size_of(first)]
    assert receipt.size == size_of(third)
    assert [size_of(text) for text in anchor(home, witness).notes()] == [size_of(first), size_of(third)]


def test_a_fork_that_is_shown_to_two_witnesses_is_refused_by_each_and_told(home, log, witness, tmp_path):
    introduce(witness, home)
    with serving(Witness("x.example.org", tmp_path / "x.json")) as other:
        introduce(other, home)
        shared = log.grown(4)
        for each in (witness, other):
            anchor(home, each).publish("main", shared)
        forked = crashed_copy(home, tmp_path / "forked")
        branch = GrowingLog(forked)
        ours, theirs, longer = log.grown(6), branch.grown(3), branch.grown(40)
        branch.close()
        anchor(home, witness).publish("main", ours)
        anchor(forked, other).publish("main", theirs)

        refused = []
        for to, teller, note in ((witness, forked, longer), (other, home, log.grown(30))):
            before = to.heads()
            with pytest.raises(AnchorConflict) as told:
                anchor(teller, to).publish("main", note)
            assert to.heads() == before
            refused.append(str(told.value))

    assert all("did not grow from what was cosigned" in said and "422" in said for said in refused)


def test_another_tree_of_the_same_size_is_refused_and_told(home, log, witness, tmp_path):
    introduce(witness, home)
    log.grown(4)
    forked = crashed_copy(home, tmp_path / "forked")
    branch = GrowingLog(forked)
    theirs = branch.grown(1)
    branch.close()
    while size_of(ours := log.grown(1)) < size_of(theirs):
        pass
    anchor(home, witness).publish("main", ours)

    with pytest.raises(AnchorConflict, match="did not grow") as told:
        anchor(forked, witness).publish("main", theirs)
    assert "409" in str(told.value)


def test_an_older_log_that_was_put_back_is_told(home, log, witness, tmp_path):
    introduce(witness, home)
    older = log.grown(4)
    copy = crashed_copy(home, tmp_path / "older")
    anchor(home, witness).publish("main", log.grown(10))

    with pytest.raises(AnchorConflict, match="an older log was put back"):
        anchor(copy, witness).publish("main", older)


def test_lines_that_are_not_those_of_the_head_reach_no_witness(home, log, witness):
    introduce(witness, home)
    running = anchor(home, witness)
    running.publish("main", log.grown(2))
    note = log.grown(5)
    content = segments(home)[0].read_bytes()
    changed = content.replace(b'"flow":"f1"', b'"flow":"f2"', 1)
    assert changed != content
    segments(home)[0].write_bytes(changed)
    asked = len(witness.asked)

    with pytest.raises(AnchorError, match="not those of its signed head"):
        running.publish("main", note)
    assert len(witness.asked) == asked


@pytest.mark.parametrize(("known", "status"), [(False, "404"), (True, "403")])
def test_a_witness_that_does_not_know_the_log_is_told_with_what_to_do(home, log, witness, known, status):
    if known:
        witness.know(VerifierKey(lane_name(home.log_id, "main"), bytes(32)).__str__())

    with pytest.raises(AnchorError, match=rf"answers {status}: .*governor audit anchor keys") as told:
        anchor(home, witness).publish("main", log.grown())
    assert not isinstance(told.value, AnchorConflict)


def test_a_cosignature_from_the_future_is_refused(home, log, witness):
    introduce(witness, home)
    witness.clock = lambda: time.time() + 3600

    with pytest.raises(AnchorError, match="ahead of this machine"):
        anchor(home, witness).publish("main", log.grown())


@contextmanager
def stranger(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """An address at which each connection is read from once and then left to `answer`."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    connection.recv(65536)
                    answer(connection)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def says(status: str, body: str, *headers: str) -> Callable[[socket.socket], object]:
    head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", *headers))
    return lambda connection: connection.sendall(f"{head}\r\n\r\n{body}".encode())


def drips(head: bytes) -> Callable[[socket.socket], object]:
    """The head, and then one byte after the other, each in good time."""
    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(0.05)

    return answer


def endless(head: bytes) -> Callable[[socket.socket], object]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"x" * 65536)

    return answer


OTHER_KEY = WitnessKey("w.example.org", bytes(32))
LIES = [
    pytest.param(says("200 OK", "thanks"), r'no cosignature .*"thanks"', id="words for a cosignature"),
    pytest.param(says("200 OK", ""), "no cosignature|no line", id="nothing for a cosignature"),
    pytest.param(says("200 OK", f"— {OTHER_KEY.name} {'A' * 104}\n"), "no line of its answer", id="another's key"),
    pytest.param(says("200 OK", "\x1b[2J\u202e"), r"\\x1b\[2J\\u202e", id="what a terminal would act on"),
    pytest.param(says("302 Found", "", "Location: http://x.example.org/"), "no redirect is followed", id="a redirect"),
    pytest.param(says("500 Internal Server Error", "a" * 5000), r'500: "a{200}\.\.\."', id="a long excuse"),
    pytest.param(says("409 Conflict", "many"), "409 with no size", id="a conflict without a size"),
    pytest.param(says("409 Conflict", "1\n"), "did not grow|another size", id="a conflict again and again"),
    pytest.param(says("409 Conflict", "9" * 18), "were cosigned", id="a size beyond everything"),
    pytest.param(says("409 Conflict", "9" * 5000), "409 with no size", id="a size that is no number"),
    pytest.param(lambda connection: None, "does not answer", id="no word"),
    pytest.param(lambda connection: connection.sendall(b"\0\1\2\n\n"), "does not answer", id="no HTTP"),
    pytest.param(drips(b"HTTP/1.1 200 OK\r\nX: "), "does not answer", id="a head that never ends"),
    pytest.param(drips(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"), "does not answer", id="a slow body"),
    pytest.param(endless(b"HTTP/1.1 200 OK\r\n\r\n"), "longer than", id="a body without end"),
    pytest.param(endless(b"HTTP/1.1 200 OK\r\nX: "), "does not answer", id="a field without end"),
    pytest.param(endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5"), "does not answer", id="a chunk"),
]


@pytest.mark.parametrize(("answer", "said"), LIES)
def test_whatever_a_witness_answers_is_bounded_and_told(monkeypatch, home, log, answer, said):
    monkeypatch.setattr(exchange, "EXCHANGE_SECONDS", 0.4)
    note, started = log.grown(3), time.monotonic()

    with stranger(answer) as url:
        lying = WitnessAnchor(url, OTHER_KEY, home, History(home.paths.lanes))
        with pytest.raises(AnchorError, match=said) as told:
            lying.publish("main", note)
    assert time.monotonic() - started < 5
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 1000
    assert list(lying.notes()) == []


def test_a_bad_cosignature_under_the_right_key_is_refused(home, log, witness):
    introduce(witness, home)
    with serving(Witness("w.example.org", witness._state.with_name("again.json"))) as impostor:
        introduce(impostor, home)
        impostor._kid = bytes.fromhex(parse_witness_key(witness.key).kid)
        wrong = WitnessAnchor(impostor.url, parse_witness_key(witness.key), home, History(home.paths.lanes))

        with pytest.raises(AnchorError, match="does not verify"):
            wrong.publish("main", log.grown())


def test_a_witness_that_is_down_is_told_and_takes_the_newest_head_when_it_is_back(home, log, tmp_path):
    with serving(Witness("w.example.org", tmp_path / "w.json")) as witness:
        introduce(witness, home)
        running = anchor(home, witness)
        running.publish("main", log.grown())
    with pytest.raises(AnchorError, match="does not answer"):
        running.publish("main", log.grown(3))

    with serving(witness, int(witness.url.rpartition(":")[2])):
        assert running.publish("main", note := log.grown(3)).size == size_of(note)


def test_a_witness_over_tls_must_show_a_certificate_that_is_trusted(monkeypatch, home, log, tmp_path):
    chain, trusted = make_certificate(tmp_path)
    witness = Witness("w.example.org", tmp_path / "w.json")
    introduce(witness, home)
    with serving(witness, chain=chain):
        with pytest.raises(AnchorError, match=r"does not answer .*certificate verify failed"):
            anchor(home, witness).publish("main", log.grown())
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))

        assert anchor(home, witness).publish("main", note := log.grown()).size == size_of(note)
    assert len(witness.asked) == 1


def test_the_submission_key_stays_and_is_private(home):
    first, again, other = (submission_key(home, lane) for lane in ("main", "main", "w0"))

    assert first.verifier_key == again.verifier_key
    assert (first.name, other.name) == (lane_name(home.log_id, "main"), lane_name(home.log_id, "w0"))
    assert (first.public, first.kid == other.kid) == (other.public, False)
    assert home.paths.submission_key.stat().st_mode & 0o777 == durable.PRIVATE_FILE
    home.paths.submission_key.chmod(0o644)
    with pytest.raises(StartRefused, match="0600"):
        submission_key(home, "main")


def test_a_home_with_a_submission_key_opens_again(home, log, tmp_path):
    submission_key(home, "main")
    log.grown()

    assert crashed_copy(home, tmp_path / "copy").lanes() == ("main",)


def test_a_proof_reads_what_was_written_since_and_no_more(monkeypatch, home, log, witness):
    introduce(witness, home)
    running = anchor(home, witness)
    running.publish("main", log.grown(scaled(3000)))
    running.publish("main", log.grown(10))
    read = []
    monkeypatch.setattr("addons.anchors.history.leaf_hashes", _counted(read))
    running.publish("main", log.grown(10))

    assert 0 < sum(read) <= 40


def _counted(read: list[int]) -> Callable[[list[bytes]], list[bytes]]:
    from kernel.merkle import leaf_hashes

    def counted(lines: list[bytes]) -> list[bytes]:
        read.append(len(lines))
        return leaf_hashes(lines)

    return counted
