"""Real clients through the socks5 mode, beside the regular mode of the same Governor."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import wire
from tests.e2e.origins import Origin, _Handler, serving
from tests.e2e.process import Governor, command_line, free_port, scratch_environment, started

pytestmark = pytest.mark.e2e

DETAIL = "Governor refused GET to localhost: no rule allows this"
GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}


@dataclass(frozen=True)
class Place:
    """A Governor in both modes, a plain origin that also serves a repository from a folder, and an origin over TLS."""

    governor: Governor
    socks: int
    http: Origin
    https: Origin
    folder: Path

    @property
    def proxy(self) -> str:
        return f"127.0.0.1:{self.socks}"

    def curl(self, *arguments: str) -> tuple[int, str, str]:
        """curl with the names left to the proxy."""
        return self.governor.curl("--socks5-hostname", self.proxy, *arguments)

    @property
    def seen(self) -> int:
        return len(self.http.seen.requests) + len(self.https.seen.requests)

    def decisions(self, since: int = 0) -> list[tuple[str, str, str]]:
        found = self.governor.entries("decision")[since:]
        return [(entry["stage"], entry["verdict"], entry["code"]) for entry in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Place]:
    chain, trusted = certificate
    folder, port = tmp_path_factory.mktemp("served"), free_port()

    class Folder(_Handler):
        def reply(self) -> None:
            file = folder / self.path.partition("?")[0].strip("/")
            if not self.path.startswith("/tiny.git/"):
                super().reply()
                return
            content = file.read_bytes() if file.is_file() else b""
            self.send_response(200 if file.is_file() else 404)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with (serving(Folder) as plain, serving(chain=chain) as tls,
          started(tmp_path_factory.mktemp("governor"), trust=trusted,
                  options=["--mode", "regular", "--mode", f"socks5@127.0.0.1:{port}"]) as governor):
        yield Place(governor, port, plain, tls, folder)


@pytest.fixture(params=["http", "https"])
def origin(request: pytest.FixtureRequest, place: Place) -> Origin:
    return place.http if request.param == "http" else place.https


@contextlib.contextmanager
def tls_tunnel(place: Place, host: str, port: int, server_name: str,
               alpn: str = "http/1.1") -> Iterator[ssl.SSLSocket]:
    context = wire.trusting(place.governor.ca)
    context.check_hostname = False
    context.set_alpn_protocols([alpn])
    with (wire.socks5_connected(place.socks, host, port) as connection,
          context.wrap_socket(connection, server_hostname=server_name) as inside):
        yield inside


# curl


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_gets_what_is_allowed(place: Place, origin: Origin, version: str) -> None:
    before = len(place.decisions())

    assert place.curl(version, f"{origin.url}/wanted") == (200, "GET /wanted\n", "")
    assert place.decisions(before) == [("connect", "allow", "TUNNEL"), ("request", "allow", "ALLOW")]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_shows_why_it_was_refused(place: Place, origin: Origin, version: str) -> None:
    before = place.seen
    status, body, _ = place.curl(version, f"{origin.url}/denied/x")

    assert (status, json.loads(body)["detail"]) == (403, DETAIL)
    assert place.seen == before


def test_curl_that_looks_names_up_itself_is_told_what_to_change(place: Place, origin: Origin) -> None:
    before = place.seen
    status, body, _ = place.governor.curl("--socks5", place.proxy, "-4", f"{origin.url}/wanted")
    told = json.loads(body)

    assert (status, told["code"]) == (403, "DESTINATION_MISMATCH")
    assert "socks5h://" in told["next_step"]
    assert place.seen == before


def test_an_address_that_the_request_names_too_is_judged_as_an_address(place: Place) -> None:
    before = place.seen
    status, body, _ = place.governor.curl("--socks5", place.proxy, f"http://127.0.0.1:{place.http.port}/wanted")

    assert (status, json.loads(body)["code"]) == (403, "PRIVATE_ADDRESS")
    assert place.seen == before


def test_the_regular_mode_of_the_same_process_works_as_ever(place: Place, origin: Origin) -> None:
    assert place.governor.curl(f"{origin.url}/wanted") == (200, "GET /wanted\n", "")


# The banner, the ports


def test_the_start_says_where_both_proxies_are(place: Place) -> None:
    assert f"socks5   socks5h://{place.proxy}" in place.governor.output
    assert place.governor.proxy.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("which", ["socks5", "regular", "metrics"])
def test_governors_own_ports_are_not_reached_through_it(place: Place, which: str) -> None:
    port = {"socks5": place.socks, "regular": place.governor.port,
            "metrics": int(place.governor.metrics.rpartition(":")[2].partition("/")[0])}[which]

    assert place.curl(f"http://localhost:{port}/metrics")[0] == 403


def test_one_governor_a_socks5_port(place: Place, tmp_path: Path) -> None:
    command = command_line(tmp_path / "home", None, ["--mode", f"socks5@{place.proxy}"], serve=True)
    result = subprocess.run(command, capture_output=True, text=True, env=scratch_environment(tmp_path), check=False,
                            timeout=60)

    assert result.returncode == 1
    assert "refused to start: PORT_BUSY" in result.stderr


# Python, byte by byte


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
@pytest.mark.parametrize(("host", "server_name", "authority"), [
    ("localhost", "www.example.org", "localhost"), ("www.example.org", "localhost", "www.example.org"),
    ("localhost", "localhost", "www.example.org"), ("www.example.org", "localhost", "localhost"),
])
def test_tunnel_server_name_and_host_must_agree(
        place: Place, host: str, server_name: str, authority: str, alpn: str) -> None:
    before, port = place.https.seen.connections, place.https.port
    with tls_tunnel(place, host, port, server_name, alpn) as inside:
        if alpn == "h2":
            answer = wire.Http2(inside).ask(wire.fields("GET", f"{authority}:{port}", "/a"))
        else:
            answer = wire.send(inside, wire.request("GET", "/a", [("Host", f"{authority}:{port}")]))

    assert answer is not None
    assert answer.code == "DESTINATION_MISMATCH"
    assert place.https.seen.connections == before


@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
def test_a_connect_in_a_tunnel_opens_nothing(place: Place, alpn: str) -> None:
    before, port = place.https.seen.connections, place.https.port
    with tls_tunnel(place, "localhost", port, "localhost", alpn) as inside:
        if alpn == "h2":
            answer = wire.Http2(inside).ask(((":method", "CONNECT"), (":authority", f"localhost:{port}")))
        else:
            answer = wire.send(inside, wire.request("CONNECT", f"localhost:{port}", []), "CONNECT")

    assert answer is None or answer.status >= 400
    assert place.https.seen.connections == before


def test_one_connection_to_the_origin_serves_a_tunnels_requests(place: Place) -> None:
    before = place.https.seen.connections
    with tls_tunnel(place, "localhost", place.https.port, "localhost") as inside:
        answers = [wire.send(inside, wire.request("GET", f"/{number}", [("Host", f"localhost:{place.https.port}")]))
                   for number in range(3)]

    assert [answer.body if answer else None for answer in answers] == [b"GET /0\n", b"GET /1\n", b"GET /2\n"]
    assert place.https.seen.connections == before + 1


@contextlib.contextmanager
def named(chain: Path) -> Iterator[tuple[int, list[str | None]]]:
    """An origin that records the name in each TLS hello and answers one request on each connection."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.sni_callback = lambda sock, name, ctx: names.append(name)  # type: ignore[assignment]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = context.wrap_socket(server.accept()[0], server_side=True)
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], names
        server.shutdown(socket.SHUT_RDWR)


def test_the_origin_is_asked_for_the_name_that_was_judged_not_for_the_clients_spelling(
        place: Place, certificate: tuple[Path, Path]) -> None:
    with named(certificate[0]) as (port, names):
        with tls_tunnel(place, "LocalHost.", port, "LOCALHOST") as inside:
            answer = wire.send(inside, wire.request("GET", "/", [("Host", f"LOCALhost:{port}")]))

        assert answer is not None
        assert (answer.status, names) == (204, ["localhost"])


# git


@pytest.fixture(scope="module")
def repository(place: Place, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a repository that a plain file server serves."""
    work = tmp_path_factory.mktemp("work")
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    bare = place.folder / "tiny.git"
    for command in (["git", "init", "-q", str(work)],
                    ["git", "-C", str(work), *who, "commit", "-q", "--allow-empty", "-m", "the only one"],
                    ["git", "clone", "-q", "--bare", str(work), str(bare)],
                    ["git", "-C", str(bare), "update-server-info"]):
        subprocess.run(command, check=True, env=os.environ | GIT)
    return f"{place.http.url}/tiny.git"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_clones_what_is_allowed(place: Place, repository: str, tmp_path: Path) -> None:
    result = git(place, "clone", "-q", repository, str(tmp_path / "clone"))
    log = subprocess.run(["git", "-C", str(tmp_path / "clone"), "log", "--format=%s"], capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    assert log.stdout == "the only one\n"


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_shows_the_text_of_a_refusal(place: Place, tmp_path: Path) -> None:
    before = place.seen
    result = git(place, "clone", f"{place.http.url}/denied/tiny.git", str(tmp_path / "clone"))

    assert result.returncode == 128
    assert f"remote: {DETAIL}" in result.stderr
    assert place.seen == before


def git(place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    return place.governor.run("git", "-c", f"http.proxy=socks5h://{place.proxy}", *arguments, env=GIT)


# Identity: from the first agent on


@pytest.fixture(scope="module")
def token(place: Place) -> str:
    return str(json.loads(place.governor.verb("agents", "add", "coder-1", "--json").stdout)["token"])


@pytest.mark.parametrize("user", ["coder-1", "whoever"])
def test_an_agents_token_is_the_proxys_password(place: Place, origin: Origin, token: str, user: str) -> None:
    assert place.curl("--proxy-user", f"{user}:{token}", f"{origin.url}/wanted")[0] == 200
    assert [entry["agent"] for entry in place.governor.entries("decision")[-2:]] == (
        [{"id": "coder-1", "by": "proxy-auth"}] * 2)


def test_a_wrong_token_gets_no_further_than_the_handshake(place: Place, origin: Origin, token: str) -> None:
    before, seen = len(place.decisions()), place.seen
    status, _, told = place.curl("--proxy-user", "coder-1:gov_wrong", f"{origin.url}/wanted")

    assert status == 0
    assert "SOCKS5" in told or "authentication" in told.lower()
    assert place.decisions(before) == [("connect", "deny", "IDENTITY_REFUSED")]
    assert place.seen == seen


def test_a_client_without_a_token_is_told_inside(place: Place, origin: Origin, token: str) -> None:
    before, seen = len(place.decisions()), place.seen
    status, body, _ = place.curl(f"{origin.url}/wanted")

    assert (status, json.loads(body)["code"]) == (407, "IDENTITY_REQUIRED")
    assert place.decisions(before) == [("connect", "allow", "TUNNEL"), ("request", "deny", "IDENTITY_REQUIRED")]
    assert place.seen == seen


def test_no_token_is_written_down_and_the_log_verifies(place: Place, token: str) -> None:
    place.curl("--proxy-user", f"coder-1:{token}", f"{place.http.url}/wanted")
    written = [file.read_bytes() for file in place.governor.home.rglob("*") if file.is_file()]

    assert not any(token.encode() in content or b"gov_wrong" in content for content in written)
    assert not any(token in line or "gov_wrong" in line for line in place.governor.output)
    assert place.governor.verify()["result"] == "verified"
