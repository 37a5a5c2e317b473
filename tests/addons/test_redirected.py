"""Where a redirected request is aimed: at the name that its client says, at the port that it dialled."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow

from addons import redirected
from addons.connections import ClientConnection
from kernel.errors import NonCanonical
from kernel.verdict import Code
from tests.addons.inside import inside

TO = (ip_address("192.0.2.1"), 8443)


def flow(*, sni=None, tls=True, hosts=(), authority=b""):
    made = tflow.tflow()
    made.client_conn.tls, made.client_conn.sni = tls, sni
    made.request.data.headers.fields = tuple((b"Host", host) for host in hosts)
    made.request.data.authority = authority
    return made


@pytest.mark.parametrize(("said", "aimed"), [
    ({"sni": "x.example"}, "x.example"),
    ({"sni": "X.Example."}, "x.example"),
    ({"sni": "x.example", "hosts": [b"y.example"]}, "x.example"),
    ({"sni": None}, "192.0.2.1"),
    ({"sni": "192.0.2.1"}, "192.0.2.1"),
    ({"tls": False, "hosts": [b"x.example:8443"]}, "x.example"),
    ({"tls": False, "hosts": [b"192.0.2.1"]}, "192.0.2.1"),
    ({"tls": False, "authority": b"x.example:8443"}, "x.example"),
    ({"tls": False, "sni": "y.example", "hosts": [b"x.example"]}, "x.example"),
])
def test_the_name_is_that_of_the_hello_or_of_the_header(said, aimed):
    made = flow(**said)
    redirected.aim(made, TO)

    assert (made.request.data.host, made.request.data.port) == (aimed, 8443)


@pytest.mark.parametrize(("said", "code"), [
    ({"tls": False}, Code.MALFORMED),
    ({"tls": False, "hosts": [b""]}, Code.MALFORMED),
    ({"tls": False, "hosts": [b"a b"]}, Code.NON_CANONICAL),
    ({"tls": False, "hosts": [b"user@x.example"]}, Code.NON_CANONICAL),
    ({"sni": "192.0.2.2"}, Code.DESTINATION_MISMATCH),
    ({"sni": "0xc0000202"}, Code.DESTINATION_MISMATCH),
    ({"tls": False, "hosts": [b"[2001:db8::1]"]}, Code.DESTINATION_MISMATCH),
])
def test_without_a_usable_name_it_is_refused_and_told_by_its_address(said, code):
    made = flow(**said)

    with pytest.raises(NonCanonical) as refused:
        redirected.aim(made, TO)
    assert refused.value.code is code
    assert made.request.data.host == "192.0.2.1"


@pytest.mark.parametrize(("mode", "sockname", "going_to"), [
    ("regular", ("192.0.2.1", 443), None),
    ("socks5", ("192.0.2.1", 443), None),
    ("transparent", ("192.0.2.1", 443), (ip_address("192.0.2.1"), 443)),
    ("transparent", ("::ffff:192.0.2.1", 443, 0, 0), (ip_address("192.0.2.1"), 443)),
    ("transparent", ("fe80::1%eth0", 443, 0, 2), (ip_address("fe80::1"), 443)),
])
def test_only_a_redirected_client_was_going_somewhere(mode, sockname, going_to):
    client = tflow.tclient_conn()
    client.proxy_mode, client.sockname = ProxyMode.parse(mode), sockname

    assert redirected.dialled(client) == going_to


@pytest.mark.parametrize(("sockname", "place"), [
    (("10.0.0.1", 8081), (ip_address("10.0.0.1"), 8081)),
    (("::ffff:10.0.0.1", 8081, 0, 0), (ip_address("10.0.0.1"), 8081)),
])
def test_a_client_has_arrived_at_the_port_of_governor_wherever_it_was_going(sockname, place):
    arrived = redirected.arrived(SimpleNamespace(get_extra_info={"sockname": sockname}.get))

    assert arrived == place
    assert ClientConnection("192.0.2.9", redirected_to=TO, arrived_at=arrived).listener_port == 8081


@pytest.mark.parametrize(("arrived", "code"), [(TO, Code.NEVER), ((TO[0], 8081), Code.ALLOW)])
async def test_what_nobody_redirected_is_not_dialled_whatever_a_rule_says(home, arrived, code):
    policy = "version: 1\nrules: [{allow: it, to: 192.0.2.1, schemes: [http], ports: 8443, methods: any}]\n"
    asked = flow(tls=False, hosts=[b"192.0.2.1:8443"])
    asked.request.data.scheme = b"http"
    async with inside(home, policy=policy) as place:
        connection = ClientConnection("192.0.2.9", redirected_to=TO, arrived_at=arrived)
        judged = await place.judge.request(None, connection, asked)

    assert judged.verdict.code is code
