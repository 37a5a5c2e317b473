"""Ways out through a destination that says two things, or one thing in a spelling that nobody expects."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

import pytest

from tests.e2e import wire
from tests.e2e.ways_out.hello import PAYLOAD, offer_encrypted_hello
from tests.e2e.ways_out.ways import Web, Yard, get, patiently, recording, wait_until

pytestmark = pytest.mark.e2e

MISMATCH = "DESTINATION_MISMATCH"


def refused(answer: wire.Answer | None, code: str) -> None:
    assert answer is not None
    assert (answer.status, answer.code) == (403, code)


# Tunnels


@pytest.mark.case(21)
@pytest.mark.parametrize("alpn", ["http/1.1", "h2"])
def test_a_secret_in_the_server_name_reaches_no_one(yard: Yard, alpn: str) -> None:
    authority = f"localhost:{yard.https.port}"
    with yard.nothing_leaves(), yard.tunnel(authority, server_name="secret-data.evil.example.org",
                                            alpn=(alpn,)) as inside:
        answer = (wire.Http2(inside).ask(wire.fields("GET", authority)) if alpn == "h2"
                  else wire.send(inside, get("/", ("Host", authority))))

    refused(answer, MISMATCH)


@pytest.mark.case(22)
@pytest.mark.parametrize("authority", ["gist.example.org:443", "secret.example.org:443", "169.254.169.254:443"])
def test_a_tunnel_to_a_denied_host_opens_nothing_and_says_why_inside(yard: Yard, authority: str) -> None:
    with yard.nothing_leaves():
        answer = yard.inside(authority, get("/", ("Host", authority.rpartition(":")[0])))

    assert answer is not None
    assert (answer.status, answer.code in ("RULE_DENY", "DEFAULT_DENY", "NEVER")) == (403, True)
    assert answer.problem["entry"] == f"main/{yard.decisions(answer)[0]['seq']}"


@pytest.mark.case(23)
@pytest.mark.parametrize("server_name", ["gist.example.org", "localhost.example.org", "127.0.0.1.example.org"])
def test_a_server_name_other_than_the_tunnels_is_refused(yard: Yard, server_name: str) -> None:
    authority = f"localhost:{yard.https.port}"
    with yard.nothing_leaves():
        answer = yard.inside(authority, get("/", ("Host", authority)), server_name)

    refused(answer, MISMATCH)


@pytest.mark.case(24)
@pytest.mark.parametrize("host", ["gist.example.org", "localhost", "localhost:1", "127.0.0.1:{port}",
                                  "xlocalhost:{port}", "localhost:{port}.", "localhost:{port}:{port}"])
def test_a_host_header_other_than_the_tunnels_is_refused(yard: Yard, host: str) -> None:
    authority = f"localhost:{yard.https.port}"
    with yard.nothing_leaves():
        answer = yard.inside(authority, get("/", ("Host", host.format(port=yard.https.port))))

    assert answer is not None
    assert answer.status in (400, 403)


@pytest.mark.case(24)
@pytest.mark.parametrize("more", [(), (("host", "gist.example.org"),)])
def test_an_authority_over_http2_other_than_the_tunnels_is_refused(yard: Yard, more: wire.Fields) -> None:
    authority = f"localhost:{yard.https.port}"
    with yard.nothing_leaves():
        answer = yard.over_http2(authority, wire.fields("GET", authority if more else "gist.example.org", "/", *more))

    assert answer is None or answer.status in (400, 403)


@pytest.mark.case(25)
@pytest.mark.parametrize(("target", "host"), [
    ("http://gist.example.org/", "localhost:{port}"), ("http://localhost:{port}/", "gist.example.org"),
    ("http://localhost:{port}/", "localhost"), ("http://localhost/", "localhost:{port}"),
])
def test_a_target_and_a_host_header_that_disagree_are_refused(yard: Yard, target: str, host: str) -> None:
    port = yard.http.port
    with yard.nothing_leaves():
        answer = yard.ask(get(target.format(port=port), ("Host", host.format(port=port))))

    refused(answer, MISMATCH)


@pytest.mark.case(26)
@pytest.mark.parametrize("names", [("Host", "Host"), ("Host", "host"), ("HOST", "Host")])
@pytest.mark.parametrize("second", ["gist.example.org", "localhost:{port}"])
def test_two_host_headers_are_refused(yard: Yard, names: tuple[str, str], second: str) -> None:
    authority = f"localhost:{yard.http.port}"
    with yard.nothing_leaves():
        answer = yard.ask(get(f"http://{authority}/", (names[0], authority),
                              (names[1], second.format(port=yard.http.port))))

    refused(answer, MISMATCH)


@pytest.mark.case(27)
@pytest.mark.parametrize("target", ["http://gist.example.org/", "https://gist.example.org/",
                                    "https://localhost:{port}/denied/x"])
def test_an_absolute_target_inside_a_tunnel_is_refused(yard: Yard, target: str) -> None:
    authority, target = f"localhost:{yard.https.port}", target.format(port=yard.https.port)
    with yard.nothing_leaves():
        inside = yard.inside(authority, get(target, ("Host", authority)))
        over_http2 = yard.over_http2(authority, wire.fields("GET", authority, target))

    assert inside is not None
    assert inside.status in (400, 403)
    refused(over_http2, "NON_CANONICAL")


# Spellings of addresses

LOOPBACK = ("127.0.0.1", "2130706433", "0x7f000001", "0X7F.1", "127.1", "127.0.1", "0177.0.0.1", "017700000001",
            "0", "0.0.0.0", "127.0.0.1.", "127.255.255.254", "[::1]", "[::]", "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]")


@pytest.mark.case(28)
@pytest.mark.parametrize("literal", LOOPBACK)
def test_no_spelling_of_an_address_reaches_what_no_rule_grants(yard: Yard, literal: str) -> None:
    with yard.nothing_leaves():
        answer = yard.ask(get(f"http://{literal}:{yard.http.port}/x", ("Host", f"{literal}:{yard.http.port}")))

    refused(answer, "PRIVATE_ADDRESS")


@pytest.mark.case(28)
@pytest.mark.parametrize("literal", ["169.254.169.254", "2852039166", "0xa9fea9fe", "169.254.43518",
                                     "0251.0376.0251.0376", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]",
                                     "[fd00:ec2::254]", "169.254.169.254."])
def test_no_spelling_of_the_metadata_address_passes(yard: Yard, literal: str) -> None:
    with yard.nothing_leaves():
        answer = yard.ask(get(f"http://{literal}/literal/x", ("Host", literal)))

    refused(answer, "NEVER")


@pytest.mark.case(29)
@pytest.mark.parametrize("literal", ["127.0.0.1", "2130706433", "0x7f.1", "127.0.0.1.", "0177.0.0.1"])
def test_a_granted_address_is_dialled_and_written_down_in_one_spelling(yard: Yard, literal: str) -> None:
    authority = f"{literal}:{yard.http.port}"
    answer = yard.ask(get(f"http://{authority}/literal/{literal}", ("Host", authority)))

    assert answer is not None
    assert answer.status == 200
    shown = yard.governor.entries("decision")[-1]["in"]
    assert (shown["host"], shown["address"]) == ("127.0.0.1", "127.0.0.1")


@pytest.mark.case(29)
@pytest.mark.parametrize("name", ["LOCALHOST", "localhost.", "LocalHost.", "%6cocalhost"])
def test_a_name_in_another_spelling_is_the_same_name_or_refused(yard: Yard, name: str) -> None:
    before = len(yard.governor.entries("decision"))
    authority = f"{name}:{yard.http.port}"
    answer = yard.ask(get(f"http://{authority}/denied/x", ("Host", authority)))
    passed = yard.ask(get(f"http://{authority}/ok", ("Host", authority)))

    assert answer is None or answer.status in (400, 403)
    assert passed is None or passed.status in (200, 400, 403)
    assert {entry["in"]["host"] for entry in yard.governor.entries("decision")[before:]} <= {"localhost"}


@pytest.mark.case(29)
@pytest.mark.parametrize("literal", ["[::1%25lo]", "[::1%lo]", "[fe80::1%25eth0]", "[::1]]", "[[::1]", "::1"])
def test_an_address_with_a_zone_or_broken_brackets_is_refused(yard: Yard, literal: str) -> None:
    authority = f"{literal}:{yard.http.port}"
    with yard.nothing_leaves():
        answer = yard.ask(get(f"http://{authority}/literal/x", ("Host", authority)))

    assert answer is None or answer.status in (400, 403)


# Names


@pytest.mark.case(30)
@pytest.mark.parametrize(("address", "code"), [
    ("169.254.169.254", "NEVER"), ("10.0.0.1", "PRIVATE_ADDRESS"), ("192.168.1.1", "PRIVATE_ADDRESS"),
    ("100.64.0.1", "PRIVATE_ADDRESS"), ("168.63.129.16", "NEVER"), ("0.0.0.0", "PRIVATE_ADDRESS"),
    ("224.0.0.1", "PRIVATE_ADDRESS"), ("93.184.215.14", "DEFAULT_DENY"),
])
def test_a_name_is_refused_for_the_address_that_it_leads_to(yard: Yard, names: dict[str, str], address: str,
                                                            code: str) -> None:
    name = f"a{address.replace('.', '-')}.inside.example.org"
    names[name] = address
    before = yard.counts[1:]
    answer = yard.ask(get(f"http://{name}:{yard.http.port}/x", ("Host", f"{name}:{yard.http.port}")))

    assert answer is not None
    assert (answer.status, answer.code in (code, "NEVER", "PRIVATE_ADDRESS", "DEFAULT_DENY")) == (403, True)
    assert answer.code == code
    assert yard.counts[1:] == before


@pytest.mark.case(30)
def test_a_name_that_changes_between_verdict_and_connection_leads_where_it_was_judged(
        yard: Yard, names: dict[str, str]) -> None:
    """Its server tells another address from the second look-up on; only the first, which was judged, is dialled."""
    assert yard.names is not None
    yard.names.names = rebinding = Rebinding()
    with recording(address="127.66.6.6", port=yard.http.port) as other:
        first = yard.ask(get(f"http://re.inside.example.org:{yard.http.port}/1",
                             ("Host", f"re.inside.example.org:{yard.http.port}")))

        assert (first and first.status, other.received) == (200, [])
        assert rebinding.asked == A_AND_AAAA


A_AND_AAAA = 2


class Rebinding(dict[str, str]):
    """Every name, at another address from the second look-up on."""

    asked = 0

    def get(self, name: str, default: object = None) -> str:  # type: ignore[override]
        self.asked += 1
        return "127.0.0.1" if self.asked <= A_AND_AAAA else "127.66.6.6"


@pytest.mark.case(30)
def test_a_name_that_is_asked_again_is_judged_again(yard: Yard, names: dict[str, str]) -> None:
    name = "again.inside.example.org"
    names[name] = "127.0.0.1"
    content = get(f"http://{name}:{yard.http.port}/x", ("Host", f"{name}:{yard.http.port}"))
    before = yard.ask(content)
    names[name] = "169.254.169.254"
    after = yard.ask(content)

    assert before is not None
    assert before.status == 200
    refused(after, "NEVER")


# Governor itself


@pytest.mark.case(49)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "0.0.0.0", "0", "127.0.0.2", "[::1]", "[::]"])
def test_the_proxy_cannot_be_reached_through_itself(yard: Yard, host: str) -> None:
    with yard.nothing_leaves():
        answer = yard.ask(get(f"http://{host}:{yard.port}/literal/x", ("Host", f"{host}:{yard.port}")))

    refused(answer, "NEVER")


@pytest.mark.case(49)
def test_the_proxy_cannot_be_reached_by_a_name_of_its_machine(yard: Yard, names: dict[str, str]) -> None:
    names["own.inside.example.org"] = "127.0.0.1"
    authority = f"own.inside.example.org:{yard.port}"
    answer = yard.ask(get(f"http://{authority}/", ("Host", authority)))

    refused(answer, "NEVER")


@pytest.mark.case(50)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "0.0.0.0"])
def test_the_metrics_cannot_be_read_through_the_proxy(yard: Yard, host: str) -> None:
    authority = f"{host}:{yard.metrics_port}"
    answer = yard.ask(get(f"http://{authority}/literal/metrics", ("Host", authority)))
    inside = yard.inside(f"localhost:{yard.metrics_port}", get("/metrics", ("Host", f"localhost:{yard.metrics_port}")))

    refused(answer, "NEVER")
    refused(inside, "NEVER")


@pytest.mark.case(50)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0x7f.1"])
def test_mitmweb_cannot_be_reached_through_the_proxy(web: Web, host: str) -> None:
    authority = f"{host}:{web.port}"
    answer = patiently(lambda: wire.ask(web.governor.port, get(
        f"http://{authority}/literal/flows", ("Host", authority))))

    refused(answer, "NEVER")


@pytest.mark.case(51)
@pytest.mark.parametrize(("url", "host"), [("http://mitm.it/", "mitm.it"), ("http://mitm.it/cert/pem", "mitm.it"),
                                           ("http://localhost:{port}/", "mitm.it")])
def test_mitmproxys_own_page_is_not_served(yard: Yard, url: str, host: str) -> None:
    with yard.nothing_leaves():
        answer = yard.ask(get(url.format(port=yard.http.port), ("Host", host)))

    assert answer is not None
    assert (answer.status, answer.code in ("DEFAULT_DENY", MISMATCH)) == (403, True)


# An encrypted client hello


@contextlib.contextmanager
def with_encrypted_hello(yard: Yard, authority: str, outer: str) -> Iterator[ssl.SSLSocket]:
    """A tunnel in which the client offers ECH, with this name in the hello that can be read."""
    context = wire.trusting(yard.governor.ca)
    context.check_hostname = False
    offer_encrypted_hello(context)
    with wire.connected(yard.port, authority) as connection, context.wrap_socket(
            connection, server_hostname=outer) as inside:
        yield inside


@pytest.mark.case(61)
def test_an_encrypted_client_hello_does_not_hide_another_destination(yard: Yard) -> None:
    authority = f"localhost:{yard.https.port}"
    with yard.nothing_leaves(), with_encrypted_hello(yard, authority, "ech.example.org") as inside:
        answer = wire.send(inside, get("/", ("Host", authority)))

    refused(answer, MISMATCH)


@pytest.mark.case(61)
def test_an_encrypted_client_hello_ends_here_and_governor_says_its_own(yard: Yard) -> None:
    authority = f"localhost:{yard.https.port}"
    with with_encrypted_hello(yard, authority, "localhost") as inside:
        passed = wire.send(inside, get("/ech", ("Host", authority)))
    with (recording() as origin, with_encrypted_hello(yard, origin.authority, "localhost") as inside):
        inside.sendall(get("/", ("Host", origin.authority)))
        wait_until(lambda: bool(origin.everything))

    assert passed is not None
    assert passed.status == 200
    assert PAYLOAD[-144:] not in origin.everything
    assert b"localhost" in origin.everything
