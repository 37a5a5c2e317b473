"""A real gRPC server and a real gRPC client with Governor in between: TLS, CONNECT, HTTP/2."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest

from addons.ending_words import grpc_trailers
from addons.refusal import Refused
from kernel.verdict import Action, Code, Verdict
from tests.e2e.process import POLICY, Governor, started

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
pytestmark = pytest.mark.e2e

SECONDS = 20.0
CAPPED = POLICY.replace('["/denied/**"]', '["/denied/**", "/small.Echo/**"]').replace("rules:\n", """\
rules:
  - allow: small-answers
    to: localhost
    address: [127.0.0.0/8, "::1"]
    ports: 1-65535
    paths: ["/small.Echo/**"]
    methods: any
    max-response: 100
""")
TRAILERS = (("x-cost", "7"), ("x-raw-bin", b"\x00\xff"))


@dataclass
class Service:
    """A server of `test.Echo`, of the same under other names, and what it was asked."""

    port: int
    seen: list[bytes] = field(default_factory=list)

    def once(self, asked: bytes, context: Any) -> bytes:
        self.seen.append(asked)
        context.send_initial_metadata((("x-first", "yes"),))
        context.set_trailing_metadata(TRAILERS)
        return asked[::-1]

    def many(self, asked: bytes, context: Any) -> Iterator[bytes]:
        self.seen.append(asked)
        context.set_trailing_metadata(TRAILERS)
        for index in range(len(asked)):
            yield asked[index:index + 1]

    def failing(self, asked: bytes, context: Any) -> bytes:
        self.seen.append(asked)
        context.set_trailing_metadata(TRAILERS)
        context.abort(grpc.StatusCode.NOT_FOUND, "nö such thing")
        raise AssertionError


@dataclass(frozen=True)
class Between:
    """A Governor, the server behind it, and what the client of both trusts."""

    governor: Governor
    service: Service

    @contextlib.contextmanager
    def channel(self, target: str = "") -> Iterator[Any]:
        trusted = grpc.ssl_channel_credentials(self.governor.ca.read_bytes())
        options = [("grpc.http_proxy", self.governor.proxy)]
        with grpc.secure_channel(target or f"localhost:{self.service.port}", trusted, options) as channel:
            yield channel


@pytest.fixture(scope="module")
def between(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Between]:
    service = Service(0)
    methods = {
        "Once": grpc.unary_unary_rpc_method_handler(service.once),
        "Many": grpc.unary_stream_rpc_method_handler(service.many),
        "Failing": grpc.unary_unary_rpc_method_handler(service.failing),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, methods) for name in ("test.Echo", "small.Echo", "denied")])
    chain = certificate[0].read_bytes()
    service.port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(chain, chain)]))
    server.start()
    try:
        with started(tmp_path_factory.mktemp("grpc"), CAPPED, trust=certificate[1]) as governor:
            yield Between(governor, service)
    finally:
        server.stop(None).wait(SECONDS)


def test_a_call_that_is_allowed_works_with_its_metadata(between: Between) -> None:
    with between.channel() as channel:
        answer, call = channel.unary_unary("/test.Echo/Once").with_call(b"abc", timeout=SECONDS)

    assert answer == b"cba"
    assert ("x-first", "yes") in call.initial_metadata()
    assert set(TRAILERS) <= {(name, value) for name, value in call.trailing_metadata()}


def test_a_server_stream_that_is_allowed_works_with_its_metadata(between: Between) -> None:
    with between.channel() as channel:
        call = channel.unary_stream("/test.Echo/Many")(b"stream", timeout=SECONDS)
        answers = list(call)

    assert answers == [b"s", b"t", b"r", b"e", b"a", b"m"]
    assert call.code() is grpc.StatusCode.OK
    assert set(TRAILERS) <= {(name, value) for name, value in call.trailing_metadata()}


def test_a_failure_of_the_servers_own_arrives_as_it_is(between: Between) -> None:
    with between.channel() as channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Echo/Failing")(b"abc", timeout=SECONDS)

    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.NOT_FOUND, "nö such thing")
    assert set(TRAILERS) <= {(name, value) for name, value in failed.value.trailing_metadata()}


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream"])
def test_a_refused_call_shows_the_detail_and_reaches_no_server(between: Between, kind: str) -> None:
    before = list(between.service.seen)
    with between.channel() as channel, pytest.raises(grpc.RpcError) as refused:
        # An answer is bytes or a stream of them.
        list(getattr(channel, kind)("/denied/Once")(b"secret", timeout=SECONDS))

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert refused.value.details() == "Governor refused POST to localhost: no rule allows this"
    assert between.service.seen == before


def test_a_refused_host_shows_the_detail_without_a_connection(between: Between) -> None:
    with between.channel("gist.example.org:443") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/test.Echo/Once")(b"abc", timeout=SECONDS)

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert refused.value.details() == "Governor refused POST to gist.example.org: rule no-gists"


def test_a_refused_call_is_one_decision_since_the_client_does_not_try_again(between: Between) -> None:
    before = len(between.governor.entries("decision"))
    with between.channel() as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/denied/Once")(b"abc", timeout=SECONDS)

    made = between.governor.entries("decision")[before:]
    assert [(entry["stage"], entry["code"]) for entry in made] == [("connect", "TUNNEL"), ("request", "DEFAULT_DENY")]


def test_a_stream_that_grows_too_large_gives_what_came_and_then_the_detail(between: Between) -> None:
    came: list[bytes] = []
    with between.channel() as channel, pytest.raises(grpc.RpcError) as cut:
        came.extend(channel.unary_stream("/small.Echo/Many")(b"x" * 1_000, timeout=SECONDS))

    # Each message takes six bytes on the wire.
    assert came == [b"x"] * len(came)
    assert len(came) <= 16
    assert cut.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert cut.value.details() == (
        "Governor ended POST to localhost: the answer is larger than 100 bytes (small-answers)")


HALTED = Refused(Verdict(Action.HALT, Code.AGENT_HALTED, None, "the agent is halted"), "POST", "rpc.example.org",
                 "coder-1", "flow-1", "main/7", None)
MESSAGE = b"\0\0\0\0\3abc"


@contextlib.contextmanager
def cut_after(payload: bytes, chain: Path) -> Iterator[int]:
    """A server that answers one call with these bytes and ends it as Governor does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve_cut, args=(listening, context, payload), daemon=True).start()
        yield listening.getsockname()[1]


def _serve_cut(listening: socket.socket, context: ssl.SSLContext, payload: bytes) -> None:
    with context.wrap_socket(listening.accept()[0], server_side=True) as connection:
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        state.initiate_connection()
        connection.sendall(state.data_to_send())
        while content := connection.recv(65536):
            for event in state.receive_data(content):
                if isinstance(event, h2.events.RequestReceived):
                    state.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc")])
                    state.send_data(event.stream_id, payload)
                    state.send_headers(event.stream_id, list(grpc_trailers(HALTED).fields), end_stream=True)
            connection.sendall(state.data_to_send())


@pytest.mark.parametrize("half", [b"", b"\0\0", b"\0\0\0\0\7abc"], ids=["whole", "half a head", "half a message"])
def test_a_stream_that_is_cut_gives_what_came_whole_and_then_the_detail(
        half: bytes, certificate: tuple[Path, Path]) -> None:
    trusted = grpc.ssl_channel_credentials(certificate[1].read_bytes())
    came: list[bytes] = []
    with (cut_after(MESSAGE + half, certificate[0]) as port,
          grpc.secure_channel(f"localhost:{port}", trusted) as channel,
          pytest.raises(grpc.RpcError) as cut):
        came.extend(channel.unary_stream("/test.Echo/Many")(b"", timeout=SECONDS))

    assert came == [b"abc"]
    assert (cut.value.code(), cut.value.details()) == (
        grpc.StatusCode.PERMISSION_DENIED, "Governor ended POST to rpc.example.org: the agent is halted")
