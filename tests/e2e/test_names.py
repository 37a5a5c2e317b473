"""Mode dns beside mode transparent, with real redirects: which names an agent is told, and where it gets by them."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.gateway import NAMES_PORT, ORIGIN, ORIGIN_6, OTHER, PROXY_PORT, Gateway, gateway, needs_gateway

pytestmark = [pytest.mark.e2e, needs_gateway, pytest.mark.usefixtures("within_the_rate_of_refusals")]

POLICY = """\
version: 1
contact: "#agent-platform"
dns: {types: [A, AAAA, HTTPS]}
rules:
  - allow: the-api
    to: [.example.org, alone.example.net]
    address: [10.61.2.0/24, "fd61:2::/64"]
    schemes: [http, https]
    methods: any
  - allow: the-internet
    to: [public.example.net, rebound.example.net]
    methods: any
  - deny: not-this-one
    to: refused.example.org
never:
  - to: [metadata, link-local]
  - to: never.example.org
"""

NAMES = {
    "api.example.org": (ORIGIN, ORIGIN_6),
    "moved.example.org": (ORIGIN,),
    "alone.example.net": (ORIGIN,),
    "refused.example.org": (ORIGIN,),
    "never.example.org": (ORIGIN,),
    "other.example.com": (ORIGIN,),
    "rebound.example.net": ("10.61.2.2", "127.0.0.1"),
    "metadata.example.org": ("169.254.169.254",),
    "mixed.example.org": (ORIGIN, "169.254.169.254"),
}

# One question, as bytes of its own making. Prints the result, the flags, and the addresses.
ASK = """
import ipaddress, json, socket, struct, sys
server, name, kind, over, extra = sys.argv[1:6]
labels = b"".join(bytes([len(each)]) + each.encode() for each in name.split("."))
message = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, bool(extra)) + labels + b"\\0" + struct.pack("!HH", int(kind), 1)
if extra:
    message += b"\\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
family = socket.AF_INET6 if ":" in server else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM if over == "udp" else socket.SOCK_STREAM) as client:
    client.settimeout(8)
    client.connect((server, 53))
    if over == "udp":
        client.send(message)
        answer = client.recv(4096)
    else:
        client.sendall(struct.pack("!H", len(message)) + message)
        answer = client.recv(4096)[2:]
number, flags, _, count, _, more = struct.unpack_from("!HHHHHH", answer)
at = 12 + len(labels) + 1 + 4
found = []
for _ in range(count):
    _, kind, _, ttl, size = struct.unpack_from("!HHHIH", answer, at)
    found.append(str(ipaddress.ip_address(answer[at + 12:at + 12 + size])))
    at += 12 + size
print(json.dumps([flags & 15, number, found, answer[12:12 + len(labels)].decode("latin-1") == labels.decode("latin-1"),
                  answer[at:].decode("latin-1")]))
"""
A, MX, TXT, AAAA, HTTPS, ANY = "1", "15", "16", "28", "65", "255"
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Gateway]:
    chain, trusted = certificate
    modes = [f"transparent@{PROXY_PORT}", f"dns@{NAMES_PORT}"]
    with gateway(tmp_path_factory.mktemp("gateway"), POLICY, chain, trusted, NAMES, modes) as made:
        yield made


def asked(place: Gateway, name: str, kind: str = A, *, over: str = "udp", server: str = "192.0.2.53",
          extra: str = "") -> tuple[int, list[str]]:
    result = place.python(ASK, server, name, kind, over, extra)
    assert result.returncode == 0, result.stderr
    code, number, found, echoed, _ = json.loads(result.stdout)
    assert (number, echoed) == (7, True)
    return code, found


@pytest.mark.parametrize("over", ["udp", "tcp"])
@pytest.mark.parametrize("server", ["192.0.2.53", "8.8.8.8", "2001:db8::53"])
def test_a_name_to_which_a_rule_leads_is_answered_whatever_server_is_asked(
        place: Gateway, over: str, server: str) -> None:
    assert asked(place, "api.example.org", over=over, server=server) == (NOERROR, [ORIGIN])
    assert asked(place, "api.example.org", AAAA, over=over, server=server) == (NOERROR, [ORIGIN_6])


def test_the_question_comes_back_in_the_letters_in_which_it_was_asked(place: Gateway) -> None:
    assert asked(place, "aPi.ExAmPlE.oRg") == (NOERROR, [ORIGIN])


def test_a_name_without_addresses_of_that_family_is_answered_with_none(place: Gateway) -> None:
    assert asked(place, "moved.example.org", AAAA) == (NOERROR, [])
    assert asked(place, "moved.example.org", HTTPS) == (NOERROR, [])


@pytest.mark.parametrize(("name", "code"), [
    ("other.example.com", "DEFAULT_DENY"), ("refused.example.org", "RULE_DENY"), ("never.example.org", "NEVER"),
    ("metadata.example.org", "PRIVATE_ADDRESS"), ("rebound.example.net", "PRIVATE_ADDRESS"),
    ("c2VjcmV0IGtleSBtYXRlcmlhbCB0aGF0IGxlYXZlcyBieSBuYW1lcw.c2VjcmV0IGtleSBtYXRlcmlhbCB0aGF0IGxlYX.example.org",
     "DEFAULT_DENY"),
    ("a.b.c.d.e.example.org", "DEFAULT_DENY"), ("a b.example.org", "NON_CANONICAL"), ("10.61.2.2", "NON_CANONICAL"),
])
def test_every_other_name_is_refused_and_logged(place: Gateway, name: str, code: str) -> None:
    before = len(place.governor.entries("decision"))

    assert asked(place, name) == (REFUSED, [])
    (found,) = place.governor.wait_for_entry("decision", before + 1)[before:]
    assert (found["stage"], found["verdict"], found["code"]) == ("dns", "deny", code)


@pytest.mark.parametrize("kind", [TXT, MX, ANY])
def test_records_that_nobody_looks_at_are_refused(place: Gateway, kind: str) -> None:
    assert asked(place, "api.example.org", kind) == (REFUSED, [])


def test_of_several_addresses_those_are_told_that_may_be_dialled(place: Gateway) -> None:
    assert asked(place, "mixed.example.org") == (NOERROR, [ORIGIN])


def test_a_client_that_can_read_it_is_told_why(place: Gateway) -> None:
    result = place.python(ASK, "192.0.2.53", "other.example.com", A, "udp", "yes")

    assert "Governor: DEFAULT_DENY main/" in json.loads(result.stdout)[4]


def test_a_name_that_does_not_exist_does_not_exist(place: Gateway) -> None:
    # The hosts file is all there is: no name server answers here.
    code, found = asked(place, "absent.example.org")

    assert (code in (SERVFAIL, NXDOMAIN), found) == (True, [])


@pytest.fixture
def resolver(place: Gateway) -> Iterator[None]:
    """Have the agent's own resolver ask a server of the outside."""
    folder = Path("/etc/netns") / place.agent
    folder.mkdir(parents=True)
    (folder / "resolv.conf").write_text("nameserver 192.0.2.53\noptions timeout:3 attempts:2\n")
    yield
    (folder / "resolv.conf").unlink()
    folder.rmdir()
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


@pytest.mark.usefixtures("resolver")
def test_a_client_with_nothing_to_configure_gets_what_is_allowed_and_nothing_else(place: Gateway) -> None:
    for family in ("-4", "-6"):
        assert place.curl(family, "https://api.example.org/x")[0] == 200
    assert place.curl("https://other.example.com/")[0] == 0
    assert place.curl("https://refused.example.org/")[0] == 0
    status, body, _ = place.curl("http://governor.internal/refusals")
    assert status == 200
    refusals = [(each["method"], each["host"]) for each in json.loads(body)["refusals"]]
    assert ("DNS", "refused.example.org") in refusals
    assert json.loads(place.curl("https://governor.internal/me")[1])["agent"] == "local"


@pytest.mark.usefixtures("resolver")
def test_an_address_that_was_told_may_be_dialled_after_the_name_has_moved(place: Gateway) -> None:
    assert asked(place, "moved.example.org") == (NOERROR, [ORIGIN])
    place.names({**NAMES, "moved.example.org": (OTHER,)})
    try:
        status, body, _ = place.curl("--resolve", f"moved.example.org:443:{ORIGIN}", "https://moved.example.org/")
        assert (status, body.rstrip()) == (200, f"moved.example.org / at ::ffff:{OTHER}")
        # Nobody was told this one.
        elsewhere = "10.61.2.9"
        status, body, _ = place.curl("--resolve", f"moved.example.org:443:{elsewhere}", "https://moved.example.org/")
        assert (status, json.loads(body)["code"]) == (403, "DESTINATION_MISMATCH")
    finally:
        place.names(NAMES)


def test_equal_questions_make_one_entry_a_minute_and_refusals_one_each(place: Gateway) -> None:
    asked(place, "alone.example.net")
    before = len(place.governor.entries("decision"))
    for _ in range(3):
        asked(place, "alone.example.net")
    for _ in range(2):
        asked(place, "other.example.com")

    found = place.governor.wait_for_entry("decision", before + 2)[before:]
    assert [entry["code"] for entry in found] == ["DEFAULT_DENY", "DEFAULT_DENY"]


def test_what_an_entry_says(place: Gateway) -> None:
    asked(place, "secret.data.other.example.com")
    found = place.governor.entries("decision")[-1]

    assert found["agent"] == {"id": "local", "by": "none"}
    assert found["in"]["host"] == "example.com"
    assert "host$c" in found["in"]
    assert found["in"]["record"] == "A"
    assert "secret" not in json.dumps(found)


GARBAGE = """
import os, socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.connect(("192.0.2.53", 53))
    for size in (0, 1, 11, 12, 13, 40, 512, 4000):
        client.send(os.urandom(size))
    client.send(bytes.fromhex("00070100000200000000000001610000010001") + bytes.fromhex("01610000010001"))
    client.send(bytes.fromhex("000701000001000000000000c00c00010001"))
with socket.socket() as client:
    client.settimeout(5)
    client.connect(("192.0.2.53", 53))
    client.sendall(b"\\xff\\xff" + b"x" * 100)
    print(client.recv(10))
"""


def test_what_is_no_question_is_survived(place: Gateway) -> None:
    assert place.python(GARBAGE).stdout.strip() == "b''"
    assert asked(place, "api.example.org") == (NOERROR, [ORIGIN])


def test_the_log_holds_and_every_decision_of_it_can_be_made_again(place: Gateway) -> None:
    assert place.governor.verb("audit", "verify", str(place.governor.home)).returncode == 0
    result = place.governor.verb("audit", "replay", str(place.governor.home), "--json")

    assert (result.returncode, json.loads(result.stdout)["result"]) == (0, "equal"), result.stdout


def test_a_dead_governor_answers_nothing_and_lets_nothing_out(
        tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    chain, trusted = certificate
    modes = [f"transparent@{PROXY_PORT}", f"dns@{NAMES_PORT}"]
    with gateway(tmp_path, POLICY, chain, trusted, NAMES, modes) as place:
        assert asked(place, "api.example.org") == (NOERROR, [ORIGIN])
        place.governor.process.send_signal(signal.SIGSTOP)
        assert place.run("curl", "-sS", "--max-time", "0.5", f"http://{ORIGIN}/").returncode != 0
        place.governor.process.send_signal(signal.SIGCONT)
        place.governor.process.kill()
        place.governor.process.wait()
        before = len(place.connections)

        assert place.python(ASK, "192.0.2.53", "api.example.org", A, "udp", "").returncode != 0
        assert place.curl("--resolve", f"api.example.org:443:{ORIGIN}", "https://api.example.org/")[0] == 0
        assert len(place.connections) == before
