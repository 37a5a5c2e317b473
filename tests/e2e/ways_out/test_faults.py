"""Ways out through a fault: of another script, of Governor itself, of the disk, of the end of the process."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import SCALE
from tests.e2e import wire
from tests.e2e.origins import Origin, counting, serving
from tests.e2e.process import Governor, started
from tests.e2e.ways_out.scripts import Sabotage, unruly
from tests.e2e.ways_out.ways import POLICY, Yard, patiently, wait_until

pytestmark = pytest.mark.e2e

HOOKS = ("client_connected", "next_layer", "http_connect", "http_connected", "tls_clienthello", "tls_start_client",
         "tls_established_client", "requestheaders", "request", "server_connect", "server_connected",
         "tls_start_server", "tls_established_server", "responseheaders", "response", "error", "client_disconnected")
BEFORE_IT_IS_SENT = ("client_connected", "next_layer", "http_connect", "requestheaders", "request", "server_connect",
                     "server_connected", "tls_established_server")
BOTH = pytest.mark.parametrize("which", ["x-ahead", "x-behind"])


@pytest.mark.case(1)
@BOTH
@pytest.mark.parametrize("hook", HOOKS)
def test_a_script_that_raises_in_a_hook_lets_nothing_denied_out(beside: Yard, which: str, hook: str) -> None:
    authority = f"localhost:{beside.https.port}"
    with beside.nothing_leaves():
        plain = beside.ask(wire.plain("POST", f"{beside.http.url}/denied/x", (which, f"raise@{hook}"), body=b""))
        tunnelled = in_tunnel(beside, authority, "/denied/x", (which, f"raise@{hook}"))

    assert all(answer is None or answer.status == 403 for answer in (plain, tunnelled))


def in_tunnel(yard: Yard, authority: str, path: str, *headers: tuple[str, str]) -> wire.Answer | None:
    """The answer inside a tunnel whose CONNECT and request have these headers; None where there is no tunnel."""
    def attempt() -> wire.Answer | None:
        with contextlib.suppress(wire.Refused, OSError), wire.tunnel(
                yard.port, yard.governor.ca, authority, *headers) as inside:
            return wire.send(inside, wire.request("GET", path, (("Host", authority), *headers)))
        return None
    return patiently(attempt)


# Governor's own faults


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory,
           certificate: tuple[Path, Path]) -> Iterator[tuple[Yard, Sabotage]]:
    """A watched Governor of which a part fails as `Sabotage` says."""
    folder, (chain, trusted) = tmp_path_factory.mktemp("broken"), certificate
    sabotage = Sabotage(folder)
    with (counting() as trap, serving() as plain, serving(chain=chain) as tls,
          started(folder, POLICY, ["-s", str(sabotage.script)], trust=trusted) as governor):
        yield Yard(governor, None, trap, plain, tls), sabotage


@pytest.fixture
def sabotage(broken: tuple[Yard, Sabotage]) -> Iterator[Sabotage]:
    yield broken[1]
    broken[1].nowhere()


@pytest.mark.case(1)
@pytest.mark.parametrize("act", ["raise", "cancel"])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_of_governors_own_that_fails_refuses_or_closes(broken: tuple[Yard, Sabotage], sabotage: Sabotage,
                                                              hook: str, act: str) -> None:
    yard, authority = broken[0], f"localhost:{broken[0].https.port}"
    allowed, seen = sent(yard), received(yard)
    sabotage.at(hook, act)
    plain = yard.ask(wire.plain("GET", f"{yard.http.url}/x"))
    tunnelled = in_tunnel(yard, authority, "/x")
    sabotage.nowhere()

    if hook in BEFORE_IT_IS_SENT:
        assert tunnelled is None or tunnelled.status in (403, 502)
        assert received(yard) - seen == (1 if hook in ("http_connect", "tls_established_server") else 0)
    if hook == "responseheaders":
        assert [answer and answer.status for answer in (plain, tunnelled)] == [403, 403]
    # Whatever reached an origin had its verdict first.
    assert received(yard) - seen <= sent(yard) - allowed


def received(yard: Yard) -> int:
    return len(yard.http.seen.requests) + len(yard.https.seen.requests)


def sent(yard: Yard) -> int:
    return sum(entry["stage"] == "request" and entry["verdict"] == "allow"
               for entry in yard.governor.entries("decision"))


@pytest.mark.case(2)
def test_a_verdict_that_is_cancelled_refuses(broken: tuple[Yard, Sabotage]) -> None:
    yard = broken[0]
    with yard.nothing_leaves():
        answer = yard.ask(wire.plain("GET", f"{yard.http.url}/?judge=is-cancelled"))

    assert answer is not None
    assert (answer.status, answer.code) == (403, "FAULT")


@pytest.mark.case(3)
def test_a_kernel_that_hangs_costs_its_flow_the_deadline_and_other_flows_nothing(
        broken: tuple[Yard, Sabotage]) -> None:
    yard = broken[0]
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(wire.ask, yard.port, wire.plain("GET", f"{yard.http.url}/?judge=hangs"), seconds=30)
        time.sleep(0.3)
        other, still = yard.ask(wire.plain("GET", f"{yard.http.url}/other")), not hanging.done()
        answer = hanging.result()

    assert (other and other.status, still) == (200, True)
    assert answer is not None
    assert (answer.status, answer.code) == (403, "DEADLINE")
    assert "GET /?judge=hangs" not in yard.http.seen.lines


@pytest.mark.case(4)
def test_a_kernel_that_dies_refuses(broken: tuple[Yard, Sabotage]) -> None:
    yard = broken[0]
    with yard.nothing_leaves():
        answer = yard.ask(wire.plain("GET", f"{yard.http.url}/?judge=dies"))

    assert answer is not None
    assert (answer.status, answer.code) == (403, "FAULT")


@pytest.mark.case(56)
def test_a_client_that_leaves_during_its_verdict_has_one_decision_and_one_outcome(
        broken: tuple[Yard, Sabotage]) -> None:
    """What a verdict costs is settled by its outcome: once, whatever happens in between."""
    yard = broken[0]
    first, seen = len(yard.governor.entries()), received(yard)
    with wire.dial(yard.port) as connection:
        connection.sendall(wire.plain("GET", f"{yard.http.url}/left?judge=is-slow"))
        time.sleep(0.3)
    wait_until(lambda: any(entry["type"] == "decision" for entry in yard.governor.entries()[first:]))
    time.sleep(0.5)
    entries = yard.governor.entries()[first:]
    outcomes = [(entry["flow"], entry["result"]) for entry in entries if entry["type"] == "outcome"]

    assert received(yard) == seen
    assert outcomes == [(entry["flow"], "aborted") for entry in entries if entry["type"] == "decision"]
    assert len(outcomes) == 1


# The hooks of another script that never return


@pytest.fixture(scope="module")
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Governor, Origin]]:
    folder = tmp_path_factory.mktemp("hanging")
    script = unruly(folder, "x-behind", 1, hanging=True)
    with serving() as origin, started(folder, POLICY, ["-s", str(script)]) as governor:
        yield governor, origin


@pytest.mark.case(2, 3)
def test_hooks_of_other_scripts_that_never_return_are_answered_at_the_deadline(
        hanging: tuple[Governor, Origin]) -> None:
    governor, origin = hanging
    contents = [wire.plain("GET", f"{origin.url}/{hook}", ("x-behind", f"hang@{hook}"))
                for hook in ("requestheaders", "request")]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda content: wire.ask(governor.port, content, seconds=9), contents))

    assert origin.seen.lines == []
    assert [answer and answer.status for answer in answers] == [403, 403]


# The disk and the end


@pytest.mark.case(5)
def test_where_the_log_cannot_grow_everything_is_refused(tmp_path: Path) -> None:
    with serving() as origin, started(tmp_path, POLICY) as governor:
        before = wire.ask(governor.port, wire.plain("GET", f"{origin.url}/before"))
        # A limit on the size of files fails a write as a full disk does, and needs no root.
        size = governor.segment.stat().st_size
        resource.prlimit(governor.process.pid, resource.RLIMIT_FSIZE, (size + 100, size + 100))
        after = [wire.ask(governor.port, wire.plain("GET", f"{origin.url}/after")) for _ in range(3)]

        assert before is not None
        assert before.status == 200
        assert [answer and (answer.status, answer.code) for answer in after] == [(403, "AUDIT_UNAVAILABLE")] * 3
        assert origin.seen.lines == ["GET /before"]


@pytest.mark.case(6)
@pytest.mark.parametrize("how", ["a signal", *(["another script"] if SCALE >= 10 else [])])
def test_a_request_without_a_verdict_is_not_sent_when_the_process_ends(tmp_path: Path, how: str) -> None:
    sabotage = Sabotage(tmp_path)
    other = unruly(tmp_path, "x-behind", 1)
    options = ["-s", str(sabotage.script), "-s", str(other)]
    headers = [("x-behind", "shutdown@request")] if how == "another script" else []
    with serving() as origin, started(tmp_path, POLICY, options) as governor, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(wire.ask, governor.port, wire.plain("GET", f"{origin.url}/?judge=is-slow", *headers))
        if how == "a signal":
            time.sleep(0.5)
            governor.process.send_signal(signal.SIGTERM)
        ended = governor.process.wait(20)
        answer = asked.result()

        assert answer is None or answer.status == 403
        assert (origin.seen.lines, ended) == ([], 0)
        assert governor.verify()["result"] == "verified"
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", governor.port)):
            pass


@pytest.mark.case(58)
def test_a_script_that_exits_in_a_hook_takes_the_request_with_it(tmp_path: Path) -> None:
    with serving() as origin, started(tmp_path, POLICY, ["-s", str(unruly(tmp_path, "x-behind", 1))]) as governor:
        answer = wire.ask(governor.port, wire.plain("GET", f"{origin.url}/x", ("x-behind", "exit@request")))

        assert answer is None or answer.status == 403
        assert governor.process.wait(20) != 0
        assert origin.seen.lines == []
