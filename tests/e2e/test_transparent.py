"""Transparent mode, with real redirects: what a client names and where it was going agree, or nothing leaves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway import AGENT, GATEWAY, ORIGIN, ORIGIN_6, OTHER, PROXY_PORT, Gateway, gateway, needs_gateway

pytestmark = [pytest.mark.e2e, needs_gateway, pytest.mark.usefixtures("within_the_rate_of_refusals")]

POLICY = """\
version: 1
contact: "#agent-platform"
rules:
  - allow: the-api
    to: [api.example.org, www.example.org, moved.example.org, inside.example.org]
    address: [10.61.2.0/24, "fd61:2::/64"]
    schemes: [http, https]
    methods: any
    except: {paths: ["/denied/**"]}
  - allow: the-literal
    to: [10.61.2.2, "fd61:2::2"]
    schemes: [http, https]
    methods: any
  - allow: the-listener
    to: [10.61.1.1]
    schemes: [http, https]
    ports: 1-65535
    methods: any
  - allow: the-other-port
    to: moved.example.org
    address: 10.61.2.0/24
    schemes: [http, https]
    ports: 2222
    methods: any
never:
  - to: [metadata, link-local]
"""

NAMES = {
    "api.example.org": (ORIGIN, ORIGIN_6),
    "www.example.org": (ORIGIN,),
    "moved.example.org": (OTHER,),
    "inside.example.org": (GATEWAY,),
    "denied.example.org": (ORIGIN,),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Gateway]:
    chain, trusted = certificate
    folder = tmp_path_factory.mktemp("gateway")
    with gateway(folder, POLICY, chain, trusted, NAMES, [f"transparent@{PROXY_PORT}"]) as made:
        yield made


def at(name: str, address: str = ORIGIN, port: int = 443) -> tuple[str, str]:
    """How curl is told that a name has an address, as a client would be that looked it up."""
    return "--resolve", f"{name}:{port}:{f'[{address}]' if ':' in address else address}"


def code(answer: str) -> str:
    return str(json.loads(answer)["code"])


@pytest.mark.parametrize(("url", "address"), [
    ("https://api.example.org/x", ORIGIN), ("http://api.example.org/x", ORIGIN),
    ("https://api.example.org/x", ORIGIN_6), ("http://api.example.org/x", ORIGIN_6),
])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_client_that_knows_no_proxy_gets_what_is_allowed(
        place: Gateway, url: str, address: str, version: str) -> None:
    port = 443 if url.startswith("https") else 80
    status, body, error = place.curl(version, *at("api.example.org", address, port), url)

    assert (status, error) == (200, "")
    assert body.startswith("api.example.org /x at ")


def test_a_refusal_inside_tls_is_explained_under_a_certificate_for_its_name(place: Gateway) -> None:
    before = len(place.connections)
    status, body, error = place.curl(*at("denied.example.org"), "https://denied.example.org/")

    assert (status, error) == (403, "")
    told = json.loads(body)
    assert (told["code"], told["agent"]) == ("DEFAULT_DENY", "local")
    assert told["detail"].startswith("Governor refused GET to denied.example.org")
    assert len(place.connections) == before


def test_a_path_is_judged_as_in_every_other_mode(place: Gateway) -> None:
    status, body, _ = place.curl(*at("api.example.org"), "https://api.example.org/denied/x")

    assert (status, code(body)) == (403, "DEFAULT_DENY")


def test_the_name_is_dialled_at_governors_own_answer(place: Gateway) -> None:
    place.names({**NAMES, "moved.example.org": (ORIGIN, OTHER)})
    status, body, _ = place.curl(*at("moved.example.org", OTHER), "https://moved.example.org/")

    assert status == 200
    assert body.startswith("moved.example.org / at ")


@pytest.mark.parametrize("url", ["https://www.example.org/", "http://www.example.org/"])
@pytest.mark.parametrize("address", [OTHER, "169.254.169.254", "192.0.2.7", ORIGIN_6])
def test_a_connection_to_an_address_that_the_name_does_not_have_is_refused(
        place: Gateway, url: str, address: str) -> None:
    before = len(place.connections)
    port = 443 if url.startswith("https") else 80
    status, body, _ = place.curl(*at("www.example.org", address, port), url)

    assert (status, code(body)) == (403, "DESTINATION_MISMATCH")
    assert len(place.connections) == before


def test_cloud_metadata_is_refused_by_its_address(place: Gateway) -> None:
    status, body, _ = place.curl("http://169.254.169.254/latest/meta-data/")

    assert (status, code(body)) == (403, "NEVER")


def test_an_address_that_is_allowed_as_such_is_reached_by_it(place: Gateway) -> None:
    assert place.curl(f"http://{ORIGIN}/x")[0] == 200
    assert place.curl(f"http://[{ORIGIN_6}]/x")[0] == 200


def test_a_host_header_with_another_address_is_refused(place: Gateway) -> None:
    status, body, _ = place.curl("-H", f"Host: {ORIGIN}", f"http://{OTHER}/")

    assert (status, code(body)) == (403, "DESTINATION_MISMATCH")


@pytest.mark.parametrize("header", ["Host: denied.example.org", "Host: api.example.org:8443", f"Host: {ORIGIN}"])
@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_a_host_header_that_is_not_the_name_of_the_hello_is_refused(
        place: Gateway, header: str, version: str) -> None:
    status, body, _ = place.curl(version, *at("api.example.org"), "-H", header, "https://api.example.org/")

    assert (status, code(body)) == (403, "DESTINATION_MISMATCH")


def test_a_host_header_with_another_port_is_refused_in_clear_text(place: Gateway) -> None:
    status, body, _ = place.curl(*at("api.example.org", port=80), "-H", "Host: api.example.org:8080",
                                 "http://api.example.org/")

    assert (status, code(body)) == (403, "DESTINATION_MISMATCH")


SENDS = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 10) as client:
    client.sendall(sys.argv[3].encode().decode("unicode_escape").encode("latin-1"))
    client.settimeout(10)
    got = b""
    try:
        while piece := client.recv(65536):
            got += piece
            if b"}" in got: break
    except OSError as error:
        got += repr(error).encode()
print(got.decode("latin-1"))
"""


def sent(place: Gateway, text: str, address: str = ORIGIN, port: int = 80) -> str:
    return place.python(SENDS, address, str(port), text).stdout


@pytest.mark.parametrize(("text", "code"), [
    pytest.param("GET / HTTP/1.1\\r\\n\\r\\n", "MALFORMED", id="no Host"),
    pytest.param("GET / HTTP/1.0\\r\\n\\r\\n", "MALFORMED", id="no Host in HTTP/1.0"),
    pytest.param("GET / HTTP/1.1\\r\\nHost: \\r\\n\\r\\n", "MALFORMED", id="an empty Host"),
    pytest.param("GET / HTTP/1.1\\r\\nHost: a b\\r\\n\\r\\n", "NON_CANONICAL", id="a Host that is no host"),
    pytest.param("GET / HTTP/1.1\\r\\nHost: api.example.org\\r\\nHost: www.example.org\\r\\n\\r\\n",
                 "DESTINATION_MISMATCH", id="two Hosts"),
    pytest.param("GET http://www.example.org/ HTTP/1.1\\r\\nHost: api.example.org\\r\\n\\r\\n",
                 "DESTINATION_MISMATCH", id="an absolute target of another host"),
    pytest.param("GET http://api.example.org:81/ HTTP/1.1\\r\\nHost: api.example.org\\r\\n\\r\\n",
                 "DESTINATION_MISMATCH", id="an absolute target of another port"),
    pytest.param("CONNECT www.example.org:443 HTTP/1.1\\r\\nHost: www.example.org:443\\r\\n\\r\\n",
                 "MALFORMED", id="CONNECT"),
])
def test_what_names_no_destination_or_two_is_refused(place: Gateway, text: str, code: str) -> None:
    before = len(place.connections)
    answer = sent(place, text)

    assert f"x-governor-code: {code}\n" in answer
    assert len(place.connections) == before


HELLO = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with socket.create_connection((sys.argv[1], 443), 10) as client:
    with context.wrap_socket(client, server_hostname=sys.argv[2] or None) as inside:
        inside.sendall(f"GET / HTTP/1.1\\r\\nHost: {sys.argv[3]}\\r\\n\\r\\n".encode())
        print(inside.recv(65536).decode("latin-1"))
"""


def test_without_a_name_in_the_hello_only_the_address_itself_can_be_meant(place: Gateway) -> None:
    named = place.python(HELLO, ORIGIN, "", "api.example.org").stdout
    plain = place.python(HELLO, ORIGIN, "", ORIGIN).stdout
    other = place.python(HELLO, OTHER, "", ORIGIN).stdout

    assert "x-governor-code: DESTINATION_MISMATCH\n" in named
    # Its certificate has no address: that is the origin's fault, and no refusal.
    assert "x-governor-code: ORIGIN_FAILED\n" in plain
    assert "x-governor-code: DESTINATION_MISMATCH\n" in other


def test_an_address_in_the_hello_has_to_be_the_one_that_was_dialled(place: Gateway) -> None:
    # Python sends no address as a server name; openssl does what it is told.
    asked = ["openssl", "s_client", "-quiet", "-connect", f"{OTHER}:443", "-servername", ORIGIN]
    command = f"printf 'GET / HTTP/1.1\\r\\nHost: {ORIGIN}\\r\\nConnection: close\\r\\n\\r\\n' | {' '.join(asked)}"
    answer = place.run("timeout", "10", "sh", "-c", command).stdout

    assert "x-governor-code: DESTINATION_MISMATCH" in answer


def test_the_listener_itself_is_no_destination(place: Gateway) -> None:
    # The table refuses it, unless it was redirected; a mistake in a table must not become a loop.
    inside = ["ip", "netns", "exec", place.middle, "python3", "-c", SENDS, GATEWAY, str(PROXY_PORT),
              f"GET / HTTP/1.1\\r\\nHost: {GATEWAY}:{PROXY_PORT}\\r\\n\\r\\n"]
    answer = subprocess.run(inside, capture_output=True, text=True, check=False, timeout=30).stdout

    assert "x-governor-code: NEVER\n" in answer


def test_a_name_of_the_gateway_is_refused_as_an_inside_address(place: Gateway) -> None:
    status, body, _ = place.curl(*at("inside.example.org", GATEWAY), "https://inside.example.org/")

    assert (status, code(body)) == (403, "PRIVATE_ADDRESS")


@pytest.mark.parametrize("text", ["SSH-2.0-x\\r\\n", "\\x00\\x01\\x02\\x03binary", "EHLO there\\r\\n" * 9 + "\\r\\n"])
@pytest.mark.parametrize("port", [80, 443, 2222])
def test_what_is_neither_tls_nor_http_reaches_nothing(place: Gateway, text: str, port: int) -> None:
    before = len(place.connections)
    answer = sent(place, text, port=port)

    assert "200 OK" not in answer
    assert len(place.connections) == before


def test_bytes_of_another_protocol_are_closed_and_logged(place: Gateway) -> None:
    before = len(place.governor.entries("connection"))
    sent(place, "SSH-2.0-x\\r\\n", port=443)
    found = place.governor.wait_for_entry("connection", before + 1)[-1]

    assert (found["result"], found["code"], found["client"]) == ("refused", "PROTOCOL_REFUSED", AGENT)


def test_a_client_that_distrusts_our_certificate_stands_in_the_log(place: Gateway) -> None:
    before = len(place.governor.entries("connection"))
    result = place.run("curl", "-sS", *at("api.example.org"), "https://api.example.org/")
    found = place.governor.wait_for_entry("connection", before + 1)[-1]

    assert result.returncode == 60
    assert found["result"] == "handshake_failed"


@pytest.mark.parametrize("url", ["http://governor.internal/me", "https://governor.internal/me"])
def test_the_mirror_answers_at_any_address(place: Gateway, url: str) -> None:
    port = 443 if url.startswith("https") else 80
    status, body, _ = place.curl(*at("governor.internal", "198.18.0.1", port), url)

    assert status == 200
    assert json.loads(body)["agent"] == "local"


def test_another_port_is_judged_as_that_port(place: Gateway) -> None:
    status, body, _ = place.curl(*at("www.example.org", port=2222), "http://www.example.org:2222/")

    assert (status, code(body)) == (403, "DEFAULT_DENY")
    # Allowed there, and nobody listens.
    assert place.curl(*at("moved.example.org", OTHER, 2222), "http://moved.example.org:2222/")[0] == 502


def test_an_upload_is_read_and_judged(place: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"x" * 200_000)
    status, body, _ = place.curl(*at("api.example.org"), "--data-binary", f"@{file}", "https://api.example.org/up")

    assert (status, body) == (200, "200000 bytes\n")


def test_what_is_not_redirected_is_refused(place: Gateway) -> None:
    before, refused = len(place.connections), place.refused_packets
    result = place.run("curl", "-sS", "--max-time", "10", f"http://{ORIGIN}:8443/")

    # At once, by the table: 28 would say that nothing came back.
    assert result.returncode == 7
    assert place.refused_packets > refused
    assert len(place.connections) == before


def test_proxy_credentials_say_nothing_where_nobody_asked_a_proxy(place: Gateway) -> None:
    status, body, _ = place.curl(*at("api.example.org", port=80), "-H", "Proxy-Authorization: Basic eDp5",
                                 "http://api.example.org/x")

    assert status == 200
    assert "eDp5" not in body


def test_a_client_that_waits_for_its_origin_to_speak_reaches_nobody(place: Gateway) -> None:
    before = len(place.connections)
    silent = place.python("""
import socket, sys
with socket.create_connection((sys.argv[1], 2222), 10) as client:
    client.settimeout(0.5)
    try:
        print(client.recv(10))
    except TimeoutError:
        print("silence")
""", ORIGIN)

    assert silent.stdout == "silence\n"
    assert len(place.connections) == before


def test_where_identity_is_missing_nobody_is_asked_for_proxy_credentials(
        tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    policy = POLICY + "identity: {proxy-auth: yes}\n"
    with gateway(tmp_path, policy, *certificate, NAMES, [f"transparent@{PROXY_PORT}"]) as place:
        # Said to an origin, credentials for a proxy are not even wrong ones.
        status, body, _ = place.curl("-i", *at("api.example.org", port=80), "-H", "Proxy-Authorization: Bearer gov_x",
                                     "http://api.example.org/x")

        assert status == 407
        assert "proxy-authenticate" not in body.lower()
        assert "where they come from" in body
        assert place.governor.entries("decision")[-1]["code"] == "IDENTITY_REQUIRED"
        assert place.connections == []


SEVERAL_HOSTS = """
import socket, sys
with socket.create_connection((sys.argv[1], 80), 10) as client:
    for host in sys.argv[2:]:
        client.sendall(f"GET /x HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
        got = b""
        while b"\\r\\n\\r\\n" not in got:
            got += client.recv(65536)
        head, _, body = got.partition(b"\\r\\n\\r\\n")
        fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\\r\\n")[1:])
        while len(body) < int(fields["content-length"]):
            body += client.recv(65536)
        print(head[9:12].decode(), fields.get("x-governor-code", "-"))
"""


def test_each_request_of_a_connection_is_judged_by_its_own_name(place: Gateway) -> None:
    place.names(NAMES)
    names = ("api.example.org", "www.example.org", "moved.example.org", "denied.example.org", "api.example.org")
    told = place.python(SEVERAL_HOSTS, ORIGIN, *names).stdout.split("\n")

    assert told[:5] == ["200 -", "200 -", "403 destination_mismatch", "403 default_deny", "200 -"]


FOREIGN_AUTHORITY = """
import socket, ssl, sys
import h2.config, h2.connection, h2.events
context = ssl.create_default_context(cafile=sys.argv[2])
context.set_alpn_protocols(["h2"])
answers = {}
with context.wrap_socket(socket.create_connection((sys.argv[1], 443), 10), server_hostname=sys.argv[3]) as inside:
    speaker = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    speaker.initiate_connection()
    for number, authority in enumerate(sys.argv[3:]):
        speaker.send_headers(2 * number + 1, [(":method", "GET"), (":scheme", "https"), (":authority", authority),
                                              (":path", "/x")], end_stream=True)
    inside.sendall(speaker.data_to_send())
    while len(answers) < len(sys.argv[3:]):
        for event in speaker.receive_data(inside.recv(65536)):
            if isinstance(event, h2.events.ResponseReceived):
                fields = dict(event.headers)
                answers[event.stream_id] = f"{fields[':status']} {fields.get('x-governor-code', '-')}"
        inside.sendall(speaker.data_to_send())
print(*[answers[number] for number in sorted(answers)], sep="\\n")
"""


def test_a_foreign_authority_on_a_connection_of_http2_is_refused(place: Gateway) -> None:
    told = place.python(FOREIGN_AUTHORITY, ORIGIN, str(place.governor.ca), "api.example.org", "www.example.org",
                        "denied.example.org", "api.example.org:444", "api.example.org")

    assert told.stdout.split("\n")[:5] == ["200 -", *["403 DESTINATION_MISMATCH"] * 3, "200 -"], told.stderr
