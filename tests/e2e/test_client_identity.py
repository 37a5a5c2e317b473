"""Who is who without a token: client certificates, listening ports, addresses, as real clients bring them."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from tests.certificates import DAY, SERVERS, Issued, authority, issued
from tests.e2e import wire
from tests.e2e.origins import Origin, serving
from tests.e2e.process import Governor, free_port, started

pytestmark = pytest.mark.e2e

ME = "http://governor.internal/me"
RULES = """\
rules:
  - allow: local
    to: localhost
    address: [127.0.0.0/8, "::1"]
    schemes: [http, https]
    ports: 1-65535
    methods: any
"""
BY_CERTIFICATE = f"version: 1\nidentity: {{cert: {{ca: clients.pem}}}}\n{RULES}"
CA = authority()


def told(body: str) -> tuple[str, str]:
    """Who Governor says that the client is, and by what."""
    me = json.loads(body)
    return me["agent"], me["by"]


# Client certificates


@dataclass(frozen=True)
class Demanding:
    """A Governor that wants certificates, before an origin with TLS."""

    governor: Governor
    https: Origin
    folder: Path

    def curl(self, client: Issued | None, *arguments: str) -> tuple[int, str, str]:
        """curl that speaks TLS with the proxy itself, with this certificate."""
        proxy = ["--proxy", f"https://localhost:{self.governor.port}", "--proxy-cacert", str(self.governor.ca)]
        if client is not None:
            file = client.written(self.folder, "client")
            proxy += ["--proxy-cert", str(file), "--proxy-key", str(file.with_suffix(".key"))]
        return self.governor.curl(*proxy, *arguments)

    def ending(self, act: Callable[[], object]) -> tuple[str, str | None]:
        """How the log tells of the connection that comes to nothing in this."""
        before = len(self.governor.entries("connection"))
        act()
        entry = self.governor.wait_for_entry("connection", before + 1)[before]
        return entry["result"], entry["code"]

    def reload(self) -> None:
        loads = len(self.governor.entries("policy_load"))
        self.governor.process.send_signal(signal.SIGHUP)
        self.governor.wait_for_entry("policy_load", loads + 1)


@contextlib.contextmanager
def demanding(folder: Path, certificate: tuple[Path, Path], policy: str = BY_CERTIFICATE,
              **more: Any) -> Iterator[Demanding]:
    (folder / "clients.pem").write_bytes(CA.pem)
    with (serving(chain=certificate[0]) as tls,
          started(folder, policy, trust=certificate[1], **more) as governor):
        yield Demanding(governor, tls, folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Demanding]:
    with demanding(tmp_path_factory.mktemp("demanding"), certificate) as made:
        yield made


CODER = issued(CA, "coder-1")
BELOW = authority("below", above=CA)


@pytest.mark.parametrize("client", [
    pytest.param(CODER, id="of the CA"),
    pytest.param(issued(BELOW, "coder-1"), id="of one below it"),
    pytest.param(issued(CA, "coder-1", use=None), id="for any use"),
])
def test_a_client_with_a_certificate_is_the_agent_that_it_names(place: Demanding, client: Issued) -> None:
    status, body, error = place.curl(client, ME)

    assert (status, error) == (200, "")
    assert told(body) == ("coder-1", "cert")


def test_a_certificate_counts_for_whatever_the_tunnel_carries_and_none_is_asked_for_there(place: Demanding) -> None:
    status, body, error = place.curl(CODER, f"{place.https.url}/inside")

    assert (status, error) == (200, "")
    assert "/inside" in body
    decisions = place.governor.entries("decision")[-2:]
    assert [(each["stage"], each["agent"]) for each in decisions] == [
        ("connect", {"id": "coder-1", "by": "cert"}), ("request", {"id": "coder-1", "by": "cert"})]


@pytest.mark.parametrize(("client", "ending"), [
    pytest.param(None, ("no_client_certificate", "IDENTITY_REQUIRED"), id="none"),
    pytest.param(issued(authority("others"), "coder-1"), ("client_certificate_refused", "IDENTITY_REFUSED"),
                 id="of another CA"),
    pytest.param(issued(authority(), "coder-1"), ("client_certificate_refused", "IDENTITY_REFUSED"),
                 id="of another CA that has the same name"),
    pytest.param(issued(None, "coder-1"), ("client_certificate_refused", "IDENTITY_REFUSED"), id="signed by itself"),
    pytest.param(issued(CODER, "ci"), ("client_certificate_refused", "IDENTITY_REFUSED"), id="signed by a client"),
    pytest.param(issued(CA, "coder-1", ends=-DAY), ("client_certificate_refused", "IDENTITY_REFUSED"), id="expired"),
    pytest.param(issued(CA, "coder-1", use=SERVERS), ("client_certificate_refused", "IDENTITY_REFUSED"),
                 id="for servers"),
])
def test_a_handshake_without_a_certificate_that_holds_fails_and_the_log_says_why(
    place: Demanding, client: Issued | None, ending: tuple[str, str]
) -> None:
    before, statuses = place.https.seen.connections, []

    assert place.ending(lambda: statuses.append(place.curl(client, f"{place.https.url}/")[0])) == ending
    assert (statuses, place.https.seen.connections) == ([0], before)


def test_clients_that_failed_for_want_of_a_certificate_are_not_taken_for_some_that_distrust_ours(
    place: Demanding,
) -> None:
    token = json.loads(place.governor.verb("agents", "add", "reviewer", "--json").stdout)["token"]
    place.ending(lambda: place.curl(None, ME))
    status, body, _ = place.governor.curl(
        "--proxy", f"http://x:{token}@localhost:{place.governor.port}", f"https://gist.example.org:{place.https.port}/")

    # Refused inside its tunnel, in words. Who comes from where somebody distrusts us gets a bare status line.
    assert (status, json.loads(body)["code"]) == (403, "DEFAULT_DENY")
    assert "rejected our certificate" not in place.governor.verb("status").stdout


@pytest.mark.parametrize("client", [
    pytest.param(issued(CA, "Coder One"), id="no id"),
    pytest.param(issued(CA, "local"), id="a reserved id"),
    pytest.param(issued(CA), id="no name"),
    pytest.param(issued(CA, "coder-1", "ci"), id="two names"),
])
def test_a_good_certificate_that_names_no_agent_is_refused(place: Demanding, client: Issued) -> None:
    before = place.https.seen.connections
    status, body, _ = place.curl(client, ME)

    assert (status, json.loads(body)["code"]) == (407, "IDENTITY_REFUSED")
    assert place.curl(client, f"{place.https.url}/")[0] != 200
    assert place.https.seen.connections == before


def test_a_client_without_tls_to_governor_has_shown_no_certificate(place: Demanding) -> None:
    answer = wire.ask(place.governor.port, wire.plain("GET", ME))

    assert answer is not None
    assert (answer.status, answer.code) == (407, "IDENTITY_REQUIRED")


def test_a_certificate_inside_a_tunnel_names_nobody(place: Demanding, tmp_path: Path) -> None:
    """Governor stands in for the origin there, and asks for none."""
    before = place.https.seen.connections

    with pytest.raises(wire.Refused) as refused, wire.connected(place.governor.port, f"localhost:{place.https.port}"):
        pass
    assert refused.value.answer is not None
    assert refused.value.answer.code == "IDENTITY_REQUIRED"
    assert place.https.seen.connections == before


def test_the_certificate_of_governor_itself_opens_nothing_to_clients(place: Demanding) -> None:
    """Its CA signs a leaf for each name that is asked for; it is no CA of clients."""
    own = place.governor.home / "ca" / "mitmproxy-ca.pem"
    proxy = ["--proxy", f"https://localhost:{place.governor.port}", "--proxy-cacert", str(place.governor.ca)]

    assert place.ending(lambda: place.governor.curl(
        *proxy, "--proxy-cert", str(own), "--proxy-key", str(own), ME)) == (
            "client_certificate_refused", "IDENTITY_REFUSED")


@dataclass
class Session:
    """One TLS connection to the proxy by pyOpenSSL, which can be given the session of another."""

    connection: SSL.Connection

    def ask(self) -> bytes:
        """The answer. Its end is not read: a connection that ends rudely takes its session with it."""
        self.connection.sendall(wire.plain("GET", ME))
        got = b""
        with contextlib.suppress(SSL.ZeroReturnError, SSL.SysCallError):
            while not got.endswith(b"}") and (chunk := self.connection.recv(65536)):
                got += chunk
        return got


@contextlib.contextmanager
def session(port: int, version: int, client: Issued | None, earlier: SSL.Session | None = None) -> Iterator[Session]:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    if client is not None:
        context.use_certificate(client.certificate)
        context.use_privatekey(client.key)
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        plain.settimeout(None)
        connection = SSL.Connection(context, plain)
        if earlier is not None:
            connection.set_session(earlier)
        connection.set_tlsext_host_name(b"localhost")
        connection.set_connect_state()
        connection.do_handshake()
        yield Session(connection)


@pytest.mark.parametrize(("version", "client", "alert"), [
    pytest.param(SSL.TLS1_3_VERSION, None, "certificate required", id="TLS 1.3, none"),
    pytest.param(SSL.TLS1_3_VERSION, issued(authority("others"), "coder-1"), "unknown ca", id="TLS 1.3, another CA's"),
    pytest.param(SSL.TLS1_2_VERSION, None, "handshake failure", id="TLS 1.2, none"),
    pytest.param(SSL.TLS1_2_VERSION, issued(CA, "x", ends=-DAY), "certificate expired", id="TLS 1.2, expired"),
])
def test_a_client_is_told_what_its_handshake_lacks(
    place: Demanding, version: int, client: Issued | None, alert: str
) -> None:
    with pytest.raises(SSL.Error, match=alert), session(place.governor.port, version, client) as opened:
        opened.connection.recv(1)


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["TLS 1.2", "TLS 1.3"])
def test_a_session_that_is_resumed_brings_no_certificate_from_an_earlier_handshake(
    place: Demanding, version: int
) -> None:
    with session(place.governor.port, version, CODER) as first:
        assert b'"by":"cert"' in first.ask()
        earlier = first.connection.get_session()
    answers = []

    def resume() -> None:
        with contextlib.suppress(SSL.Error), session(place.governor.port, version, None, earlier) as second:
            answers.append(second.ask())

    assert place.ending(resume) == ("no_client_certificate", "IDENTITY_REQUIRED")
    assert b"".join(answers) == b""
    with session(place.governor.port, version, issued(CA, "ci"), earlier) as third:
        assert b'"agent":"ci"' in third.ask()


def test_another_ca_counts_for_the_next_request_of_an_open_connection(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    new = authority("new")
    with demanding(tmp_path, certificate) as place:
        chain = CODER.written(tmp_path, "coder")
        context = ssl.create_default_context(cafile=str(place.governor.ca))
        context.load_cert_chain(chain, chain.with_suffix(".key"))
        asked = wire.plain("GET", ME)
        with (wire.dial(place.governor.port) as plain,
              context.wrap_socket(plain, server_hostname="localhost") as connection):
            codes = []
            for trusted in (CA.pem, CA.pem + new.pem, new.pem, CA.pem):
                (tmp_path / "clients.pem").write_bytes(trusted)
                place.reload()
                answer = wire.send(connection, asked)
                assert answer is not None
                codes.append(answer.code or told(answer.body.decode())[0])
            (tmp_path / "policy.yaml").write_text(f"version: 1\nidentity: {{proxy-auth: yes}}\n{RULES}")
            place.reload()
            answer = wire.send(connection, asked)
            assert answer is not None
            codes.append(str(answer.code))

        assert codes == ["coder-1", "coder-1", "IDENTITY_REFUSED", "coder-1", "IDENTITY_REQUIRED"]
        digests = [entry["policy"] for entry in place.governor.entries("policy_load")]
        assert len(set(digests)) == 4
        assert place.curl(None, ME)[0] == 407
        assert place.governor.verify()["result"] == "verified"


def test_a_ca_that_is_gone_leaves_the_old_policy_and_its_ca_in_force(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    with demanding(tmp_path, certificate) as place:
        (tmp_path / "clients.pem").unlink()
        reloaded = place.governor.verb("reload")

        assert reloaded.returncode != 0
        assert "E230" in reloaded.stdout + reloaded.stderr
        assert told(place.curl(CODER, ME)[1]) == ("coder-1", "cert")
        assert place.curl(None, ME)[0] == 0


# Ports and addresses


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Governor, dict[str, int]]]:
    ports = {name: free_port() for name in ("anyone", "coder", "ci")}
    policy = f"""\
version: 1
identity:
  proxy-auth: yes
  port: {{{ports["coder"]}: coder-1, {ports["ci"]}: ci}}
  source: {{127.0.0.2: coder-1, 127.0.0.3: ci, 127.0.0.4: idle, 127.0.9.0/24: fleet, 127.0.9.9: reviewer}}
{RULES}"""
    modes = [option for name, port in ports.items()
             for option in ("--mode", f"{'socks5' if name == 'ci' else 'regular'}@127.0.0.1:{port}")]
    with started(tmp_path_factory.mktemp("ways"), policy, modes) as governor:
        yield governor, ports


def seen(governor: Governor, *arguments: str) -> Any:
    """Who a client is: the agent and by what, or the code that refuses it."""
    _, body, error = governor.curl(*arguments, ME)
    assert body, error
    answer = json.loads(body)
    return answer["code"] if "code" in answer else (answer["agent"], answer["by"])


@pytest.mark.parametrize(("port", "source", "who"), [
    ("coder", "127.0.0.1", ("coder-1", "port")),
    ("ci", "127.0.0.1", ("ci", "port")),
    ("coder", "127.0.0.2", ("coder-1", "port")),
    ("coder", "127.0.0.3", "IDENTITY_CONFLICT"),
    ("anyone", "127.0.0.2", ("coder-1", "source")),
    ("anyone", "127.0.0.3", ("ci", "source")),
    ("anyone", "127.0.9.8", ("fleet", "source")),
    ("anyone", "127.0.9.9", ("reviewer", "source")),
    ("anyone", "127.0.0.1", "IDENTITY_REQUIRED"),
])
def test_a_client_is_known_by_the_port_to_which_and_the_address_from_which_it_comes(
    ways: tuple[Governor, dict[str, int]], port: str, source: str, who: object
) -> None:
    governor, ports = ways
    scheme = "socks5h" if port == "ci" else "http"

    assert seen(governor, "--proxy", f"{scheme}://127.0.0.1:{ports[port]}", "--interface", source) == who


def test_two_agents_at_once_get_no_tunnel_by_socks5_either(ways: tuple[Governor, dict[str, int]]) -> None:
    governor, ports = ways
    before = len(governor.entries("decision"))
    status, _, error = governor.curl("--proxy", f"socks5h://127.0.0.1:{ports['ci']}", "--interface", "127.0.0.2", ME)

    assert status == 0
    assert "(2)" in error
    assert [(each["stage"], each["code"]) for each in governor.entries("decision")[before:]] == [
        ("connect", "IDENTITY_CONFLICT")]


def test_a_token_counts_beside_them_and_names_nobody_else(ways: tuple[Governor, dict[str, int]]) -> None:
    governor, ports = ways
    token = json.loads(governor.verb("agents", "add", "coder-1", "--json").stdout)["token"]

    def with_token(port: str, said: str, source: str = "127.0.0.1") -> object:
        return seen(governor, "--proxy", f"http://x:{said}@127.0.0.1:{ports[port]}", "--interface", source)

    assert with_token("coder", token) == ("coder-1", "proxy-auth")
    assert with_token("anyone", token) == ("coder-1", "proxy-auth")
    assert with_token("anyone", token, "127.0.0.3") == "IDENTITY_CONFLICT"
    assert with_token("coder", "gov_wrong") == "IDENTITY_REFUSED"


def test_who_was_known_without_a_token_is_listed(ways: tuple[Governor, dict[str, int]]) -> None:
    governor, ports = ways
    seen(governor, "--proxy", f"http://127.0.0.1:{ports['anyone']}", "--interface", "127.0.9.9")
    listed = {row["id"]: row for row in json.loads(governor.verb("agents", "list", "--json").stdout)}

    assert listed["reviewer"]["state"] == "running"
    assert listed["reviewer"]["last_seen"] is not None


def test_an_agent_without_a_token_can_be_halted_and_released(ways: tuple[Governor, dict[str, int]]) -> None:
    governor, ports = ways
    proxy = ("--proxy", f"http://127.0.0.1:{ports['anyone']}", "--interface", "127.0.9.8", "http://localhost:1/")

    def code(what: str) -> str:
        assert governor.verb("agents", what, "fleet", "--reason", "a test").returncode == 0
        return str(json.loads(governor.curl(*proxy)[1])["code"])

    assert [code("halt"), code("release")] == ["AGENT_HALTED", "ORIGIN_FAILED"]
    assert governor.verb("agents", "halt", "flete", "--reason", "a slip").returncode != 0


def test_an_agent_that_the_policy_names_can_be_halted_before_it_comes(ways: tuple[Governor, dict[str, int]]) -> None:
    governor, ports = ways
    proxy = ("--proxy", f"http://127.0.0.1:{ports['anyone']}", "--interface", "127.0.0.4", "http://localhost:1/")

    assert governor.verb("agents", "halt", "idle", "--reason", "a test").returncode == 0
    assert json.loads(governor.curl(*proxy)[1])["code"] == "AGENT_HALTED"


def test_a_refusal_for_two_agents_is_neithers(ways: tuple[Governor, dict[str, int]]) -> None:
    governor, ports = ways
    before = len(governor.entries("decision"))
    status, body, _ = governor.curl(
        "--proxy", f"http://127.0.0.1:{ports['coder']}", "--interface", "127.0.0.3", "http://localhost:1/")

    assert (status, json.loads(body)["agent"]) == (403, None)
    (decision,) = governor.entries("decision")[before:]
    assert (decision["verdict"], decision["code"], decision["agent"]) == (
        "deny", "IDENTITY_CONFLICT", {"id": None, "by": "none"})
