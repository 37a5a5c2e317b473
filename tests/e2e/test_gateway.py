"""The gateway of scripts/recipes/gateway: a subnet's packets are the proxy's, or they are refused and counted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import SCALE
from tests.e2e import gateway_hosts
from tests.e2e.gateway_hosts import (
    ATTACKER,
    CLIENTS,
    CLIENTS_6,
    GATEWAY,
    GATEWAY_6,
    NAME,
    ORIGIN,
    ORIGIN_6,
    OTHER_NAME,
    PROXY,
    PROXY_6,
    Subnet,
    needs_gateway,
    subnet,
)

pytestmark = [pytest.mark.e2e, needs_gateway]

# mitmproxy as it is, with the least that answers names: it shows what the table does, whatever the proxy is.
ANSWERS = f"""
from mitmproxy.net.dns import response_codes
def dns_request(flow):
    known = {{"{NAME}": "{ORIGIN}"}}
    name = flow.request.questions[0].name
    if name in known and flow.request.questions[0].type == 1:
        from mitmproxy.dns import ResourceRecord
        import ipaddress
        flow.response = flow.request.succeed([ResourceRecord.A(name, ipaddress.IPv4Address(known[name]), ttl=5)])
    else:
        flow.response = flow.request.fail(response_codes.REFUSED)
"""
POLICY = f"""
version: 1
identity:
  source: {{{CLIENTS[0]}: coder-1, "{CLIENTS_6[0]}": coder-1, {CLIENTS[1]}: coder-2}}
rules:
  - allow: good
    to: {NAME}
    address: 10.78.2.0/24
    schemes: [http, https]
    methods: any
    from: coder-1
"""
PYTHON = "#!/bin/sh\nexec /mnt/python/bin/python3 -P -c '{}' \"$@\"\n"
MITMDUMP = PYTHON.format("from mitmproxy.tools.main import mitmdump; mitmdump()")
GOVERNOR = PYTHON.format("from addons.cli import main; main()")
MODES = ("--mode", "transparent@8080", "--mode", "dns@5353")
# Everything of a client that is no web and no DNS, and DNS by other ways than its resolver.
SEND = """
import socket, sys
family = {"4": socket.AF_INET, "6": socket.AF_INET6}[sys.argv[1]]
kind, address, port = sys.argv[2], sys.argv[3], int(sys.argv[4])
if kind == "tcp":
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(3)
    try:
        s.connect((address, port)); s.sendall(b"x\\r\\n\\r\\n"); print("answered" if s.recv(10) else "closed")
    except OSError as fault:
        print(type(fault).__name__)
elif kind == "udp":
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(1)
    try:
        s.connect((address, port)); s.send(b"x" * 20); print("answered" if s.recv(10) else "closed")
    except OSError as fault:
        print(type(fault).__name__)
else:
    s = socket.socket(family, socket.SOCK_RAW, port)
    try:
        s.sendto(b"x" * 20, (address, 0)); print("sent")
    except OSError as fault:
        print(type(fault).__name__)
"""
# How a client hears of a refusal, by the family and kind of what it sent: never by a time-out.
HEARD = {("4", "tcp"): "ConnectionRefusedError", ("6", "tcp"): "ConnectionRefusedError", ("4", "udp"): "OSError",
         ("6", "udp"): "PermissionError", ("4", "raw"): "sent", ("6", "raw"): "sent"}
# One socket for each, which hears of its own alone.
MANY = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sockets, heard = [socket.socket(family, socket.SOCK_DGRAM) for _ in range(30)], 0
for s in sockets:
    s.settimeout(1)
    s.connect((sys.argv[1], 123))
    s.send(b"x")
for s in sockets:
    try:
        s.recv(10)
    except TimeoutError:
        pass
    except OSError:
        heard += 1
print(heard)
"""


# That the table holds whatever serves behind it, the long run shows.
@pytest.fixture(scope="module", params=["governor", "mitmproxy"] if SCALE >= 10 else ["governor"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subnet]:
    with subnet(tmp_path_factory.mktemp("gateway")) as made:
        made.kind = request.param
        yield made


@pytest.fixture(scope="module")
def started(network: Subnet) -> Iterator[subprocess.Popen[str]]:
    files = {"mitmdump": MITMDUMP, "governor": GOVERNOR, "answers.py": ANSWERS, "policy.yaml": POLICY}
    command = ["/mnt/bin/mitmdump", *MODES, "-s", "/mnt/bin/answers.py", "--set", "connection_strategy=lazy"]
    if network.kind == "governor":
        command = ["/mnt/bin/governor", "serve", "--home", "/mnt/home/governor", *MODES,
                   "--set", "governor_policy=/mnt/bin/policy.yaml"]
    with network.running(files, *command) as process:
        yield process


def strangers(network: Subnet) -> list[str]:
    """What the origin saw that the proxy did not send: by its source, or where it was sent to."""
    ours = re.compile(
        rf"(IP {re.escape(PROXY)}\.\d+ > \S+\.(80|443):|IP {re.escape(ORIGIN)}\.(80|443) > |"
        rf"IP {re.escape(ATTACKER)}\.(80|443) > |"
        rf"IP6 {re.escape(PROXY_6)}\.\d+ > \S+\.(80|443):|IP6 {re.escape(ORIGIN_6)}\.(80|443) > )")
    neighbours = re.compile(r"ICMP6, (neighbor|router) |ICMP6, multicast|HBH ICMP6")
    return [line for line in network.seen() if not ours.match(line) and not neighbours.search(line)]


def test_a_client_that_knows_no_proxy_reaches_an_origin_by_the_proxy_alone(network, started):
    client, before = network.clients[0], network.counters()["intercepted"]

    assert network.status(client, f"http://{NAME}/") == "200"
    after = network.counters()
    assert after["intercepted"] > before
    assert after["names"] > 0
    assert any(line.startswith(f"IP {PROXY}.") for line in network.seen())
    assert strangers(network) == []


def test_ipv6_goes_the_same_way(network, started):
    status = network.status(network.clients[0], "-H", f"Host: {NAME}", f"http://[{ORIGIN_6}]/")

    # Governor refuses it: the policy says where the name lies, and this is elsewhere. Judged it is in both cases.
    assert status == {"mitmproxy": "200", "governor": "403"}[network.kind]
    assert strangers(network) == []


def test_a_name_without_a_rule_is_refused_and_no_question_leaves(network, started):
    asked = network.clients[0].run("curl", "-sv", "-m", "8", f"http://{OTHER_NAME}/")

    assert "Could not resolve host" in asked.stderr
    assert [line for line in network.seen() if ".53:" in line] == []


@pytest.mark.parametrize(("way", "counter"), [
    pytest.param(("4", "tcp", ORIGIN, "22"), "refused_tcp", id="ssh"),
    pytest.param(("4", "tcp", "203.0.113.9", "22"), "refused_tcp", id="ssh to where no route leads"),
    pytest.param(("6", "udp", "2001:db8::9", "123"), "refused_udp", id="NTP over IPv6 to where no route leads"),
    pytest.param(("4", "raw", "240.0.0.1", "47"), "refused_other", id="GRE to an address that nobody can have"),
    pytest.param(("4", "tcp", ORIGIN, "8443"), "refused_tcp", id="another port"),
    pytest.param(("6", "tcp", ORIGIN_6, "22"), "refused_tcp", id="ssh over IPv6"),
    pytest.param(("4", "udp", ORIGIN, "443"), "refused_udp", id="QUIC"),
    pytest.param(("6", "udp", ORIGIN_6, "443"), "refused_udp", id="QUIC over IPv6"),
    pytest.param(("4", "udp", ORIGIN, "123"), "refused_udp", id="NTP"),
    pytest.param(("4", "raw", ORIGIN, "1"), "refused_icmp", id="ICMP"),
    pytest.param(("6", "raw", ORIGIN_6, "58"), "refused_icmp", id="ICMPv6"),
    pytest.param(("4", "raw", ORIGIN, "47"), "refused_other", id="GRE"),
    pytest.param(("4", "raw", ORIGIN, "4"), "refused_other", id="IP in IP"),
    pytest.param(("4", "raw", ORIGIN, "132"), "refused_other", id="SCTP"),
    pytest.param(("6", "raw", ORIGIN_6, "41"), "refused_other", id="IPv6 in IPv6"),
    pytest.param(("4", "tcp", GATEWAY, "8080"), "refused_gateway", id="the proxy's port"),
    pytest.param(("4", "tcp", PROXY, "8080"), "refused_gateway", id="the proxy's port at its other address"),
    pytest.param(("6", "tcp", GATEWAY_6, "8080"), "refused_gateway", id="the proxy's port over IPv6"),
    pytest.param(("4", "udp", GATEWAY, "5353"), "refused_gateway", id="the port of names"),
    pytest.param(("4", "tcp", GATEWAY, "22"), "refused_gateway", id="the gateway's ssh"),
    pytest.param(("4", "tcp", GATEWAY, "9464"), "refused_gateway", id="the gateway's metrics"),
])
def test_everything_else_is_refused_at_once_and_counted_and_no_packet_arrives(network, started, way, counter):
    before = network.counters()[counter]

    told = network.clients[0].python(SEND, *way)

    assert told == HEARD[way[:2]]
    assert network.counters()[counter] > before
    assert strangers(network) == []


@pytest.mark.parametrize("address", [ORIGIN, ORIGIN_6])
def test_each_of_many_refusals_is_heard(network, started, address):
    assert network.clients[0].python(MANY, address) == "30"


@pytest.mark.parametrize("server", ["203.0.113.53", ORIGIN, GATEWAY])
def test_every_server_of_names_is_the_proxy(network, started, server):
    question = bytes.fromhex("abcd01000001000000000000") + b"\x08attacker\x04test\x00\x00\x01\x00\x01"
    program = ("import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5);"
               f"s.sendto({question!r}, (sys.argv[1], 53)); print(s.recv(512)[3] & 15)")

    assert network.clients[0].python(program, server) == "5"
    assert strangers(network) == []


def test_an_address_that_is_not_of_the_subnet_is_nobodys(network, started):
    client, before = network.clients[0], network.counters()
    client.run("ip", "address", "add", "192.0.2.7/32", "dev", "lo")
    try:
        status = network.status(client, "-m", "2", "--interface", "192.0.2.7", f"http://{ORIGIN}/")
    finally:
        client.run("ip", "address", "del", "192.0.2.7/32", "dev", "lo")

    after = network.counters()
    assert status == "000"
    assert after["refused_spoofed"] > before["refused_spoofed"]
    assert after["intercepted"] == before["intercepted"]


def test_the_proxy_has_no_capabilities_and_reaches_the_web_alone(network, started):
    pid = network.gateway.run("sh", "-c", "ss -Htlnp 'sport = :8080' | grep -o 'pid=[0-9]*' | head -1").stdout
    status = network.gateway.run("cat", f"/proc/{pid.strip().removeprefix('pid=')}/status").stdout
    found = dict(re.findall(r"(\w+):\s+(\S+)", status))
    before = network.counters()["refused_proxy"]
    reached = network.gateway.run("setpriv", "--reuid", "nobody", "--clear-groups", "curl", "-s", "-m", "4", "-o",
                                  "/dev/null", "-w", "%{http_code}", f"http://{ORIGIN}:8443/").stdout

    assert {found[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Uid"]) == ("1", "65534")
    assert reached == "000"
    assert network.counters()["refused_proxy"] > before


def test_two_clients_are_two_agents_by_their_addresses(network, started):
    if network.kind != "governor":
        pytest.skip("mitmproxy knows no agents")

    got = [network.status(client, f"http://{NAME}/") for client in network.clients]
    log = network.gateway.run("nsenter", "-t", str(started.pid), "-m", "sh", "-c",
                              "cat /mnt/home/governor/audit/lanes/main/*.jsonl").stdout

    agents = {entry["agent"]["id"]: entry["agent"]["by"] for line in log.splitlines()
              if (entry := json.loads(line)["e"])["type"] == "decision"}
    assert got == ["200", "000"]
    assert agents == {"coder-1": "source", "coder-2": "source"}


# In this order: what is killed serves no test that comes after it.
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_without_its_proxy_nothing_leaves(network, started, how):
    client = network.clients[0]
    assert network.status(client, "--resolve", f"{NAME}:80:{ORIGIN}", f"http://{NAME}/") == "200"
    started.send_signal(how)
    if how is signal.SIGKILL:
        started.wait()
    seen = len(network.seen())

    for url in (f"http://{NAME}/", f"http://[{ORIGIN_6}]/"):
        assert network.status(client, "-m", "2", "--resolve", f"{NAME}:80:{ORIGIN}", url) == "000"
    assert client.python(SEND, "4", "tcp", ORIGIN, "22") == "ConnectionRefusedError"
    assert client.python(SEND, "4", "udp", ORIGIN, "53") != "answered"
    sent = [line for line in network.seen()[seen:] if f"IP {PROXY}." in line and "Flags [S]" in line]
    assert sent == []
    assert strangers(network) == []
    if how is signal.SIGSTOP:
        started.send_signal(signal.SIGCONT)


def test_the_proxy_cannot_go_on_from_a_port_that_another_user_has_let_go(network, started):
    program = ("import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2);"
               "s.bind(('', 40123)); s.connect((sys.argv[1], 123)); s.send(b'x'); print(s.recv(1))")
    assert network.gateway.python(program, ORIGIN) == "b'x'"
    before = network.counters()["refused_proxy"]

    as_proxy = network.gateway.run("setpriv", "--reuid", "nobody", "--clear-groups", "/usr/bin/python3", "-c", program,
                                   ORIGIN)
    assert "PermissionError" in as_proxy.stderr
    assert network.counters()["refused_proxy"] > before


def test_the_link_of_the_subnet_comes_up_behind_the_table(network):
    network.gateway.run("nft", "flush", "ruleset")
    network.gateway.run("ip", "link", "set", "lan", "down")
    folder = network.capture.parent / "broken"
    folder.mkdir(exist_ok=True)
    for part in ("start", "60-governor-gateway.conf"):
        (folder / part).write_bytes((gateway_hosts.RECIPE / part).read_bytes())
    (folder / "governor.nft").write_text("table inet governor { nonsense }\n")

    done = network.gateway.run("env", "GOVERNOR_USER=nobody", "sh", str(folder / "start"), "lan", "wan", "true")

    assert done.returncode != 0
    assert "state DOWN" in network.gateway.run("ip", "link", "show", "lan").stdout


@pytest.mark.parametrize(("arguments", "user", "said"), [
    pytest.param(["lan"], "nobody", "start LAN WAN COMMAND", id="too few"),
    pytest.param(["lan", "wan", "true"], "root", "a user of its own that is not root", id="root"),
    pytest.param(["lan", "nolink", "true"], "nobody", "there is no link nolink", id="no such link"),
])
def test_a_start_that_cannot_be_meant_says_why(network, arguments, user, said):
    start = str(gateway_hosts.RECIPE / "start")

    done = network.gateway.run("env", f"GOVERNOR_USER={user}", "sh", start, *arguments)

    assert done.returncode in (1, 2)
    assert said in done.stderr
