"""Every protocol with a real client and a real server, allowed and denied, in each mode of one Governor.

The rest of the matrix, in the regular mode unless it says so: `test_clients.py` and `test_model_clients.py` (HTTP/1.1
and HTTP/2 of many clients), `test_socks5.py` (the same of curl and git by SOCKS5), `test_unchanged.py` (HTTP/1.0,
chunks, trailers, 100-continue and HTTP/2 byte for byte), `test_grpc.py` (metadata, a server's own failures, refused
hosts), `test_websockets.py` (keeping each other alive), `../addons/test_websocket_layer.py` (pings, close reasons,
fragments), `test_memory.py` (large downloads), `ways_out/test_protocols.py` (upgrades to HTTP/2, a 101 nobody asked
for, what is no HTTP in a tunnel, UDP, QUIC, the modes that refuse to start).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.e2e import wire
from tests.e2e.modes import MODES, AllModes, Log, Way
from tests.e2e.origins import Origin, serving
from tests.e2e.process import free_port, started
from tests.e2e.redirected_loopback import can_redirect, redirected_loopback
from tests.e2e.speakers import MANY, SECONDS, Calls, Speaker, calling, echoing, event

pytestmark = pytest.mark.e2e

LOCAL = """\
    to: localhost
    address: [127.0.0.0/8, "::1"]
    ports: 1-65535
    methods: any
"""
POLICY = f"""\
version: 1
contact: "#agent-platform"
rules:
  - allow: small
{LOCAL}    schemes: [http, https]
    paths: ["/small/**", "/small.Echo/**"]
    max-response: 100
  - allow: streams
{LOCAL}    schemes: [http, https]
    paths: ["/stream/**", "/stream.Echo/**"]
    stream-request: yes
    max-request: 1000
  - allow: talk
{LOCAL}    schemes: [ws, wss]
    paths: ["/talk"]
    websocket: {{max-frame: 1KB, max-rate: 50/minute}}
  - allow: talk-a-little
{LOCAL}    schemes: [ws, wss]
    paths: ["/brief"]
    websocket: {{max-frame: 1KB, max-rate: 3/hour}}
  - allow: whatever-else
{LOCAL}    schemes: [http, https]
    methods: any
    except: {{paths: ["/denied/**", "/small/**", "/small.Echo/**", "/stream/**", "/stream.Echo/**"]}}
""".replace("schemes: [http, https]\n    methods: any\n    except", "schemes: [http, https]\n    except")
DETAIL = "Governor refused {} to localhost: no rule allows this"
TOO_LARGE = "the answer is larger than 100 bytes (small)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[AllModes]:
    port, redirected = free_port(), free_port()
    modes = ["--mode", "regular", "--mode", f"socks5@127.0.0.1:{port}"]
    with contextlib.ExitStack() as kept:
        if can_redirect:
            kept.enter_context(redirected_loopback(redirected))
            modes += ["--mode", f"transparent@127.0.0.1:{redirected}"]
        governor = kept.enter_context(started(
            tmp_path_factory.mktemp("governor"), POLICY, trust=certificate[1], options=modes))
        yield AllModes(governor, port)


@pytest.fixture(scope="module")
def origins(place: AllModes, certificate: tuple[Path, Path]) -> Iterator[dict[str, Origin]]:
    with serving(Speaker) as http_, serving(Speaker, certificate[0]) as https:
        yield {"http": http_, "https": https}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["http", "https"])
def way(request: pytest.FixtureRequest, place: AllModes, origins: dict[str, Origin], mode: str) -> Way:
    return Way(place, mode, origins[request.param])


@pytest.fixture
def over_http2(place: AllModes, origins: dict[str, Origin], mode: str) -> Way:
    return Way(place, mode, origins["https"])


@pytest.fixture
def log(place: AllModes) -> Log:
    return Log(place.governor)


@contextlib.contextmanager
def nothing_arrives(origin: Origin) -> Iterator[None]:
    before = (origin.seen.connections, len(origin.seen.requests))
    yield
    assert (origin.seen.connections, len(origin.seen.requests)) == before


def body(text: str) -> bytes:
    return f"{text}\n".encode()


# HTTP/1.0


def test_http_1_0_works_to_an_origin_that_ends_its_answer_by_leaving(way: Way, log: Log) -> None:
    status, got, told = way.place.governor.curl(*way.curl, "--http1.0", f"{way.origin.url}/old")

    assert (status, got, told) == (200, "until the end", "")
    assert (log.codes, log.outcomes()) == (["ALLOW"], [("completed", 0, 13)])


def test_http_1_0_is_refused_in_words(way: Way, log: Log) -> None:
    with nothing_arrives(way.origin):
        status, got, _ = way.place.governor.curl(*way.curl, "--http1.0", f"{way.origin.url}/denied/old")

    assert (status, json.loads(got)["detail"]) == (403, DETAIL.format("GET"))
    assert (log.codes, log.outcomes()) == (["DEFAULT_DENY"], [])


# HTTP/1.1


def test_one_connection_serves_what_is_allowed_before_and_behind_what_is_refused(way: Way, log: Log) -> None:
    before = len(way.origin.seen.requests)
    answers = []
    with way.client() as client:
        for path in ("/first", "/denied/second", "/third"):
            client.request("GET", way.target(path))
            answer = client.getresponse()
            answers.append((answer.status, answer.read()))

    assert [status for status, _ in answers] == [200, 403, 200]
    assert (answers[0][1], answers[2][1]) == (body("GET /first"), body("GET /third"))
    assert json.loads(answers[1][1])["code"] == "DEFAULT_DENY"
    assert way.origin.seen.lines[before:] == ["GET /first", "GET /third"]
    assert log.codes == ["ALLOW", "DEFAULT_DENY", "ALLOW"]
    assert log.outcomes() == [("completed", 0, 11), ("completed", 0, 11)]


def test_pipelined_requests_are_judged_one_by_one_and_answered_in_order(way: Way, log: Log) -> None:
    before, host = len(way.origin.seen.requests), ("Host", way.authority)
    with way.opened() as connection:
        connection.sendall(
            wire.request("GET", way.target("/1"), [host])
            + wire.request("POST", way.target("/2"), [host, ("Content-Length", "3")], b"two")
            + wire.request("GET", way.target("/denied/3"), [host]) + wire.request("GET", way.target("/4"), [host]))
        answers = _all(connection, 4)

    assert [status for status, _ in answers] == [200, 200, 403, 200]
    assert [answers[number][1] for number in (0, 1, 3)] == [body("GET /1"), body("POST /2"), body("GET /4")]
    assert way.origin.seen.lines[before:] == ["GET /1", "POST /2", "GET /4"]
    assert log.codes == ["ALLOW", "ALLOW", "DEFAULT_DENY", "ALLOW"]
    assert log.outcomes() == [("completed", 0, 7), ("completed", 3, 8), ("completed", 0, 7)]


def _all(connection: Any, count: int) -> list[tuple[int, bytes]]:
    """So many answers of a connection, of which each has a length."""
    answers = []
    with connection.makefile("rb") as lines:
        for _ in range(count):
            status = int(lines.readline().split()[1])
            fields = http.client.parse_headers(lines)
            answers.append((status, lines.read(int(fields["content-length"]))))
    return answers


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_upload_of_unknown_length_arrives_whole(over_http2: Way, version: str, log: Log, tmp_path: Path) -> None:
    way, sent = over_http2, bytes(range(256)) * 400
    status, got, told = _upload(way, version, "/upload", sent, tmp_path)
    method, path, fields, arrived = way.origin.seen.requests[-1]

    assert (status, got, told) == (200, "PUT /upload\n", "")
    assert (method, path, arrived) == ("PUT", "/upload", sent)
    assert fields.get("transfer-encoding") == ("chunked" if version == "--http1.1" else None)
    assert (log.codes, log.outcomes()) == (["ALLOW"], [("completed", len(sent), 12)])


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_upload_of_unknown_length_is_refused_in_words(
        over_http2: Way, version: str, log: Log, tmp_path: Path) -> None:
    with nothing_arrives(over_http2.origin):
        status, got, _ = _upload(over_http2, version, "/denied/upload", b"secret", tmp_path)

    assert (status, json.loads(got)["detail"]) == (403, DETAIL.format("PUT"))
    assert (log.codes, log.outcomes()) == (["DEFAULT_DENY"], [])


def _upload(way: Way, version: str, path: str, content: bytes, folder: Path) -> tuple[int, str, str]:
    """curl does not tell the length of what it reads from a stream."""
    (file := folder / "content").write_bytes(content)
    with file.open("rb") as source:
        result = way.place.governor.run("curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", version, *way.curl,
                                        "-T", "-", f"{way.origin.url}{path}", stdin=source)
    got, _, status = result.stdout.rpartition("\n")
    return int(status), got, result.stderr


def test_trailers_of_an_answer_do_not_disturb_its_body(way: Way, log: Log) -> None:
    with way.client() as client:
        client.request("GET", way.target("/trailers"))
        answer = client.getresponse()
        got = answer.read()
        client.request("GET", way.target("/next"))
        following = client.getresponse().read()

    assert (got, following) == (b"summed", body("GET /next"))
    assert (log.codes, log.outcomes()) == (["ALLOW"] * 2, [("completed", 0, 6), ("completed", 0, 10)])


def test_trailers_of_a_request_are_refused_in_words(way: Way, log: Log) -> None:
    with nothing_arrives(way.origin), way.opened() as connection:
        answer = wire.send(connection, wire.request(
            "POST", way.target("/upload"), [("Host", way.authority), ("Transfer-Encoding", "chunked")],
            b"4\r\nbody\r\n0\r\nX-Late: secret\r\n\r\n"))

    assert answer is not None
    assert (answer.status, answer.code) == (403, "TRAILERS")
    assert (log.codes, log.outcomes()) == (["TRAILERS"], [])


def test_a_body_that_waits_to_be_invited_is(way: Way, log: Log) -> None:
    status, got, told = _expecting(way, "/upload")

    assert (status, got) == (200, "POST /upload\n")
    assert "< HTTP/1.1 100 Continue" in told
    assert way.origin.seen.requests[-1][3] == b"x" * 5_000
    assert (log.codes, log.outcomes()) == (["ALLOW"], [("completed", 5_000, 13)])


def test_a_body_that_is_refused_is_never_invited(way: Way, log: Log) -> None:
    with nothing_arrives(way.origin):
        status, got, told = _expecting(way, "/denied/upload")

    assert (status, json.loads(got)["code"]) == (403, "DEFAULT_DENY")
    assert "100 Continue" not in told
    assert (log.codes, log.outcomes()) == (["DEFAULT_DENY"], [])


def _expecting(way: Way, path: str) -> tuple[int, str, str]:
    return way.place.governor.curl(*way.curl, "-v", "--http1.1", "-H", "Expect: 100-continue", "--expect100-timeout",
                                   "15", "--data-binary", "x" * 5_000, f"{way.origin.url}{path}")


@pytest.mark.parametrize("protocol", ["TLS/1.0", "example/1"])
def test_an_upgrade_to_anything_but_a_websocket_is_refused_in_words(way: Way, protocol: str, log: Log) -> None:
    with nothing_arrives(way.origin):
        status, got, _ = way.place.governor.curl(*way.curl, "--http1.1", "-H", "Connection: Upgrade", "-H",
                                                 f"Upgrade: {protocol}", f"{way.origin.url}/wanted")

    assert (status, json.loads(got)["code"]) == (403, "UPGRADE_REFUSED")
    assert (log.codes, log.outcomes()) == (["UPGRADE_REFUSED"], [])


# HTTP/2 of the client, HTTP/1 of the origin


def test_an_http2_client_gets_an_answer_that_ends_with_its_connection(over_http2: Way, log: Log) -> None:
    status, got, told = over_http2.place.governor.curl(
        *over_http2.curl, "--http2", "-w", "%{http_version} %{http_code}\n%{http_code}",
        f"{over_http2.origin.url}/old")

    assert (status, got, told) == (200, "until the end2 200", "")
    assert (log.codes, log.outcomes()) == (["ALLOW"], [("completed", 0, 13)])


def test_requests_beside_each_other_on_one_http2_connection_are_judged_one_by_one(over_http2: Way, log: Log) -> None:
    before = len(over_http2.origin.seen.requests)
    with over_http2.opened("h2") as connection:
        client = wire.Http2(connection)
        streams = [client.send(wire.fields("POST", over_http2.authority, path), content) for path, content in (
            ("/1", b"one"), ("/denied/2", b"secret"), ("/3", b"three"))]
        answers = client.answers(streams)
    first, second, third = (answers[stream] for stream in streams)

    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.status, second.status, third.status) == (200, 403, 200)
    assert (first.body, second.code, third.body) == (body("POST /1"), "DEFAULT_DENY", body("POST /3"))
    assert sorted((path, content) for _, path, _, content in over_http2.origin.seen.requests[before:]) == [
        ("/1", b"one"), ("/3", b"three")]
    assert sorted(log.codes) == ["ALLOW", "ALLOW", "DEFAULT_DENY"]
    assert sorted(log.outcomes()) == [("completed", 3, 8), ("completed", 5, 8)]


# Event streams and downloads: at once, metered, cut in words


@pytest.mark.parametrize("path", ["/events", "/pieces"])
def test_each_piece_of_an_answer_arrives_before_the_next_is_sent(way: Way, path: str, log: Log) -> None:
    with way.client() as client:
        client.request("GET", way.target(path))
        Speaker.more.release()
        answer = client.getresponse()
        got = [answer.read(len(event(0)))]
        for number in range(1, MANY):
            Speaker.more.release()
            got.append(answer.read(len(event(number))))
        got.append(answer.read())

    assert got == [*map(event, range(MANY)), b""]
    assert (log.codes, log.outcomes()) == (["ALLOW"], [("completed", 0, sum(map(len, got)))])


def test_each_event_arrives_over_http2_before_the_next_is_sent(over_http2: Way, log: Log) -> None:
    got = b""
    with over_http2.opened("h2") as connection:
        client = wire.Http2(connection)
        client.send(wire.fields("GET", over_http2.authority, "/events"))
        for number in range(MANY):
            Speaker.more.release()
            got += client.body(len(event(number)))
        got += client.body(None)

    assert got == b"".join(map(event, range(MANY)))
    assert (log.codes, log.outcomes()) == (["ALLOW"], [("completed", 0, len(got))])


def test_an_event_stream_that_grows_too_large_is_cut_in_words(way: Way, log: Log) -> None:
    with way.client() as client:
        client.request("GET", way.target("/small/flood"))
        # Told in words, and yet no answer that looks complete.
        with pytest.raises(http.client.IncompleteRead) as cut:
            client.getresponse().read()

    _cut_in_words(cut.value.partial)
    assert (log.codes, [result for result, _, _ in log.outcomes()]) == (["ALLOW"], ["cut"])
    assert log.outcomes()[0][2] <= 100


def test_an_event_stream_that_grows_too_large_is_cut_in_words_over_http2(over_http2: Way, log: Log) -> None:
    status, got, told = over_http2.place.governor.curl(
        *over_http2.curl, "--http2", f"{over_http2.origin.url}/small/flood")

    assert status == 200
    assert "HTTP/2 stream" in told
    _cut_in_words(got.encode())
    assert [result for result, _, _ in log.outcomes()] == ["cut"]


def _cut_in_words(got: bytes) -> None:
    *passed, last = [part for part in got.split(b"\n\n") if part]
    name, _, data = last.partition(b"\ndata: ")
    told = json.loads(data)
    assert passed == [event(number).rstrip() for number in range(len(passed))]
    assert 1 <= len(passed) <= 100 // len(event(0))
    assert (name, told["code"], told["rule"]) == (b"event: error", "BODY_TOO_LARGE", "small")


def test_a_download_that_grows_too_large_ends_as_what_is_not_whole(way: Way, log: Log) -> None:
    with way.client() as client:
        client.request("GET", way.target("/small/pieces/flood"))
        with pytest.raises(http.client.IncompleteRead) as cut:
            client.getresponse().read()

    assert b"".join(map(event, range(MANY))).startswith(cut.value.partial)
    assert len(cut.value.partial) <= 100
    assert [result for result, _, _ in log.outcomes()] == ["cut"]


@pytest.mark.parametrize("path", ["/denied/events", "/denied/pieces"])
def test_a_refused_stream_is_told_why(way: Way, path: str, log: Log) -> None:
    with nothing_arrives(way.origin), way.client() as client:
        client.request("GET", way.target(path), headers={"Accept": "text/event-stream"})
        answer = client.getresponse()
        got = answer.read()

    assert (answer.status, json.loads(got)["detail"]) == (403, DETAIL.format("GET"))
    assert (log.codes, log.outcomes()) == (["DEFAULT_DENY"], [])


# Bodies that pass while they come


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_each_piece_of_an_upload_arrives_before_the_next_is_sent_where_a_rule_says_so(
        over_http2: Way, version: str, log: Log) -> None:
    with _uploading(over_http2, version, "/stream/take") as curl:
        assert curl.stdin is not None
        arrived = []
        for piece in (b"first", b"second", b"third"):
            curl.stdin.write(piece)
            curl.stdin.flush()
            arrived.append(Speaker.arrived.get(timeout=SECONDS))
        got, _ = curl.communicate(timeout=SECONDS)

    assert (arrived, got) == ([b"first", b"second", b"third"], b"PUT /stream/take\n200")
    assert (log.codes, log.outcomes()) == (["ALLOW"], [("completed", 16, 17)])


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_upload_that_passes_while_it_comes_and_grows_too_large_is_told_so(
        over_http2: Way, version: str, log: Log, tmp_path: Path) -> None:
    status, got, _ = _upload(over_http2, version, "/stream/take", b"x" * 5_000, tmp_path)
    arrived = b"".join(iter(lambda: Speaker.arrived.get(timeout=1) if not Speaker.arrived.empty() else b"", b""))

    assert (status, json.loads(got)["code"]) == (413, "BODY_TOO_LARGE")
    assert len(arrived) <= 1_000
    assert (log.codes, [result for result, _, _ in log.outcomes()]) == (["ALLOW"], ["cut"])


@contextlib.contextmanager
def _uploading(way: Way, version: str, path: str) -> Iterator[subprocess.Popen[bytes]]:
    governor = way.place.governor
    leading = way.curl or ("--proxy", governor.proxy)
    with subprocess.Popen(
            ["curl", "-sS", "--max-time", "20", "-N", "-w", "%{http_code}", version, *leading, "--cacert",
             str(governor.ca), "-T", "-", f"{way.origin.url}{path}"], env=governor.environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as curl:
        try:
            yield curl
        finally:
            curl.kill()


def test_question_and_answer_pass_beside_each_other_where_a_rule_says_so(way: Way, log: Log) -> None:
    with way.client() as client:
        client.putrequest("POST", way.target("/stream/echo"))
        client.putheader("Transfer-Encoding", "chunked")
        client.endheaders()
        answer, got = client.getresponse(), []
        for piece in (b"first", b"second"):
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            got.append(answer.read(len(piece)))
        client.send(b"0\r\n\r\n")
        got.append(answer.read())

    assert got == [b"first", b"second", b""]
    assert (log.codes, log.outcomes()) == (["ALLOW"], [("completed", 11, 11)])


# WebSockets


@pytest.fixture(scope="module")
def echoes(place: AllModes, certificate: tuple[Path, Path]) -> Iterator[dict[str, Origin]]:
    with echoing() as clear, echoing(certificate[0]) as tls:
        yield {"ws": clear, "wss": tls}


@pytest.fixture(params=["ws", "wss"])
def socket_way(request: pytest.FixtureRequest, place: AllModes, echoes: dict[str, Origin], mode: str) -> Way:
    return Way(place, mode, echoes[request.param])


@contextlib.contextmanager
def talking(way: Way, path: str) -> Iterator[ClientConnection]:
    context = wire.trusting(way.place.governor.ca) if way.origin.scheme == "wss" else None
    with (way.place.tunnel(way.mode, way.origin.port) as connection,
          connect(f"{way.origin.url}{path}", sock=connection, ssl=context, open_timeout=6 * SECONDS) as socket):
        yield socket


def test_a_websocket_that_a_rule_grants_carries_messages_both_ways(socket_way: Way, log: Log) -> None:
    with talking(socket_way, "/talk") as socket:
        socket.send("héllo")
        text = socket.recv(SECONDS)
        socket.send([b"in ", b"fragments"])
        parts = socket.recv(SECONDS)
        answered = socket.ping().wait(SECONDS)

    assert (text, parts, answered) == ("héllo", b"in fragments", True)
    ((result, up, down),) = log.outcomes()
    assert (log.codes, result) == (["ALLOW"], "completed")
    # Their eighteen bytes, and the frames around them.
    assert 18 < up < 100
    assert 18 < down < 100


def test_a_message_larger_than_the_rule_allows_ends_the_websocket_in_words(socket_way: Way, log: Log) -> None:
    before = len(socket_way.origin.seen.requests)
    with talking(socket_way, "/talk") as socket:
        socket.send(b"x" * 2_000)
        with pytest.raises(ConnectionClosedError) as ended:
            socket.recv(SECONDS)

    _ended_with(ended.value, "BODY_TOO_LARGE")
    assert len(socket_way.origin.seen.requests) == before
    assert (log.codes, [result for result, _, _ in log.outcomes()]) == (["ALLOW"], ["cut"])


def test_more_messages_than_the_rule_allows_end_the_websocket_in_words(socket_way: Way, log: Log) -> None:
    before, came = len(socket_way.origin.seen.requests), []
    with talking(socket_way, "/brief") as socket:
        for number in range(3):
            socket.send(str(number))
            came.append(socket.recv(SECONDS))
        socket.send("more")
        with pytest.raises(ConnectionClosedError) as ended:
            socket.recv(SECONDS)

    _ended_with(ended.value, "RATE_LIMITED")
    assert came == ["0", "1", "2"]
    assert [content for _, _, _, content in socket_way.origin.seen.requests[before:]] == [b"0", b"1", b"2"]
    assert (log.codes, [result for result, _, _ in log.outcomes()]) == (["ALLOW"], ["cut"])


def _ended_with(ended: ConnectionClosedError, code: str) -> None:
    assert ended.rcvd is not None
    assert (ended.rcvd.code, ended.rcvd.reason.split()[0]) == (1008, code)


@pytest.mark.parametrize("path", ["/other", "/denied/talk"])
def test_a_websocket_that_no_rule_grants_is_refused_before_it_opens(socket_way: Way, path: str, log: Log) -> None:
    with (nothing_arrives(socket_way.origin), pytest.raises(InvalidStatus) as refused,
          talking(socket_way, path)):
        pass

    answer = refused.value.response
    assert (answer.status_code, answer.headers["x-governor-code"]) == (403, "UPGRADE_REFUSED")
    assert (log.codes, log.outcomes()) == (["UPGRADE_REFUSED"], [])


# gRPC


@pytest.fixture(scope="module")
def calls(place: AllModes, certificate: tuple[Path, Path]) -> Iterator[Calls]:
    with calling(pytest.importorskip("grpc", reason="grpcio is not installed"), certificate[0]) as calls:
        yield calls


@pytest.fixture
def channel(place: AllModes, calls: Calls, mode: str) -> Iterator[Any]:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    trusted = grpc.ssl_channel_credentials(place.governor.ca.read_bytes())
    authority = f"localhost:{calls.port}"
    with (place.relay(mode, calls.port) as port,
          grpc.secure_channel(f"127.0.0.1:{port}", trusted, [
              ("grpc.enable_http_proxy", 0), ("grpc.ssl_target_name_override", "localhost"),
              ("grpc.default_authority", authority)]) as channel):
        yield channel


def test_unary_calls_and_server_streams_work_as_they_do_directly(channel: Any, log: Log) -> None:
    answer = channel.unary_unary("/test.Echo/Once")(b"abc", timeout=SECONDS)
    answers = list(channel.unary_stream("/test.Echo/Many")(b"abc", timeout=SECONDS))

    assert (answer, answers) == (b"cba", [b"a", b"b", b"c"])
    # A message has five bytes of its own.
    assert (log.codes, log.outcomes()) == (["ALLOW"] * 2, [("completed", 8, 8), ("completed", 8, 18)])


def test_a_client_stream_without_a_rule_of_its_own_is_read_whole_and_then_works(
        channel: Any, calls: Calls, log: Log) -> None:
    before, sent = len(calls.messages), []

    def ask() -> Iterator[bytes]:
        for message in (b"ab", b"c"):
            yield message
            sent.append((message, len(calls.messages) - before))

    collected = channel.stream_unary("/test.Echo/Collect")(ask(), timeout=SECONDS)

    assert (collected, sent) == (b"abc", [(b"ab", 0), (b"c", 0)])
    assert (log.codes, log.outcomes()) == (["ALLOW"], [("completed", 13, 8)])


def test_a_conversation_without_a_rule_of_its_own_brings_no_word_to_its_server(
        channel: Any, calls: Calls, log: Log) -> None:
    grpc, before, came = pytest.importorskip("grpc"), len(calls.messages), list[bytes]()

    def ask() -> Iterator[bytes]:
        yield b"first"
        _wait_for(came, 1, 2)

    with pytest.raises(grpc.RpcError) as ended:
        came.extend(channel.stream_stream("/test.Echo/Talk")(ask(), timeout=0.5))

    assert (ended.value.code(), came) == (grpc.StatusCode.DEADLINE_EXCEEDED, [])
    assert len(calls.messages) == before
    # As one that was never whole.
    assert log.wait_for_codes(1) == ["MALFORMED"]


def test_a_client_stream_and_a_conversation_work_where_a_rule_says_so(channel: Any, log: Log) -> None:
    collected = channel.stream_unary("/stream.Echo/Collect")(iter([b"ab", b"c"]), timeout=SECONDS)
    said: list[bytes] = []

    def ask() -> Iterator[bytes]:
        yield b"first"
        _wait_for(said, 1)
        yield said[0] + b"!"

    said.extend(channel.stream_stream("/stream.Echo/Talk")(ask(), timeout=SECONDS))

    assert (collected, said) == (b"abc", [b"tsrif", b"!first"])
    assert (log.codes, log.outcomes()) == (["ALLOW"] * 2, [("completed", 13, 8), ("completed", 21, 21)])


def _wait_for(said: list[bytes], count: int, seconds: float = SECONDS) -> None:
    """Until so many answers have come."""
    deadline = time.monotonic() + seconds
    while len(said) < count and time.monotonic() < deadline:
        time.sleep(0.005)


@pytest.mark.parametrize(("kind", "method"), [
    ("unary_unary", "Once"), ("unary_stream", "Many"), ("stream_unary", "Collect"), ("stream_stream", "Talk")])
def test_a_refused_call_of_every_kind_shows_the_detail_and_reaches_no_server(
        channel: Any, calls: Calls, kind: str, method: str, log: Log) -> None:
    grpc, before = pytest.importorskip("grpc"), len(calls.messages)
    asked: Any = iter([b"secret"]) if kind.startswith("stream") else b"secret"
    with pytest.raises(grpc.RpcError) as refused:
        list(getattr(channel, kind)(f"/denied/{method}")(asked, timeout=SECONDS))

    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.PERMISSION_DENIED, DETAIL.format("POST"))
    assert len(calls.messages) == before
    assert (log.codes, log.outcomes()) == (["DEFAULT_DENY"], [])


def test_a_server_stream_that_grows_too_large_gives_what_came_and_then_the_detail(channel: Any, log: Log) -> None:
    grpc, came = pytest.importorskip("grpc"), []
    with pytest.raises(grpc.RpcError) as cut:
        came.extend(channel.unary_stream("/small.Echo/Many")(b"x" * 1_000, timeout=SECONDS))

    assert came == [b"x"] * len(came)
    assert len(came) <= 16
    assert (cut.value.code(), cut.value.details()) == (
        grpc.StatusCode.PERMISSION_DENIED, f"Governor ended POST to localhost: {TOO_LARGE}")
    assert [result for result, _, _ in log.outcomes()] == ["cut"]


def test_a_conversation_that_grows_too_large_ends_with_the_detail(channel: Any, calls: Calls, log: Log) -> None:
    grpc, before = pytest.importorskip("grpc"), len(calls.messages)
    came: list[bytes] = []

    def ask() -> Iterator[bytes]:
        yield b"x" * 600
        _wait_for(came, 1)
        yield b"y" * 600

    with pytest.raises(grpc.RpcError) as cut:
        came.extend(channel.stream_stream("/stream.Echo/Talk")(ask(), timeout=SECONDS))

    assert came == [b"x" * 600]

    assert cut.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert cut.value.details() == "Governor ended POST to localhost: its body is larger than 1000 bytes (streams)"
    assert b"y" * 600 not in calls.messages[before:]
    assert [result for result, _, _ in log.outcomes()] == ["cut"]


# The log of all of it


def test_the_log_of_all_this_verifies(place: AllModes) -> None:
    assert place.governor.verify()["result"] == "verified"
