"""The ledger in a real server: short time-outs, no secrets in errors, TLS, the smallest user, older states."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import redis

import addons.pools
from addons.pools import in_redis
from addons.pools.in_redis import RedisLedger
from addons.pools.opening import open_ledger
from addons.pools.protocol import LedgerError, NewsUnreadable, NotJoined
from kernel.leases import Ask, Held, Kind, News, Purse, Settled, Total, Why
from tests.addons.pools.ledgers import ROOT
from tests.addons.pools.redis_servers import FORGETFUL, KEPT, RedisServer, free_port, needs_redis

pytestmark = needs_redis
PURSE = Purse("llm", "requests", "", 0)
HOLDER, OTHER = "governor/x/w0", "governor/x/w1"


def now_us():
    return time.time_ns() // 1000


def ask(ledger, number, least=10, holder=HOLDER, limit=100):
    return ledger.acquire(holder, "r1", [Ask(number, PURSE, limit, least, least)], now_us())[0]


@pytest.fixture
def server(tmp_path):
    made = RedisServer(tmp_path, *FORGETFUL).start()
    yield made
    made.stop()


@pytest.fixture
def ledger(server):
    with closing(RedisLedger(server.url)) as made:
        made.join(HOLDER, "r1", {})
        yield made


def started(request, tmp_path, *arguments):
    made = RedisServer(tmp_path, *arguments).start()
    request.addfinalizer(made.stop)
    return made


def test_a_server_that_does_not_answer_is_given_up_soon_and_what_it_did_is_done_once(server, ledger):
    server.pause()
    began = time.monotonic()
    with pytest.raises(LedgerError, match="does not answer"):
        ask(ledger, 1)
    waited = time.monotonic() - began
    server.go_on()
    granted = again(lambda: ask(ledger, 1))

    assert waited < 2
    assert (granted.lease, ledger.overview().balances[0].held) == (1, 10)


def test_who_draws_comes_in_between_while_everything_is_read(server, ledger, monkeypatch):
    monkeypatch.setattr(in_redis, "_PURSES_AT_ONCE", 2)
    asks = [Ask(number, PURSE._replace(agent=f"a{number}"), 100, 1, 1) for number in range(1, 6)]
    ledger.acquire(HOLDER, "r1", asks, now_us())
    run, drawn = ledger._run, []
    with closing(RedisLedger(server.url)) as other:
        def meanwhile(*said, **more):
            drawn.append(ask(other, 6 + len(drawn), least=1).amount)
            return run(*said, **more)

        monkeypatch.setattr(ledger, "_run", meanwhile)
        found = ledger.overview()

    assert drawn == [1, 1, 1, 1]
    assert [each.held for each in found.balances if each.purse.agent] == [1] * 5


def test_news_of_a_newer_version_are_an_error_that_says_so(ledger):
    unknown = pytest.raises(NewsUnreadable, match="news 1 of the ledger: kind 'novel' is not known here")
    with unknown:
        ledger.tell(HOLDER, News("novel", "coder", "x/w0/1", {"type": "halt"}))
    with unknown:
        ledger.beat(HOLDER, "r1", 0, now_us(), {})


def again(call):
    """What it answers once the server is awake."""
    for _ in range(100):
        try:
            return call()
        except NotJoined:
            raise
        except LedgerError:
            time.sleep(0.05)
    raise AssertionError("the server stays away")


def test_a_server_that_is_gone_is_asked_again_when_it_is_back(request, tmp_path):
    server = started(request, tmp_path, *KEPT)
    with closing(RedisLedger(server.url)) as ledger:
        ledger.join(HOLDER, "r1", {})
        ask(ledger, 1)
        server.kill()
        with pytest.raises(LedgerError, match="does not answer"):
            ask(ledger, 1)
        server.start()

        assert again(lambda: ledger.beat(HOLDER, "r1", 0, now_us(), {})).repost
        assert ask(ledger, 2).why is Why.RECOVERING
        ledger.repost(HOLDER, [], [Held(1, PURSE, 10, "r1", 1)])
        assert ask(ledger, 3).lease == 2


def test_a_server_that_has_become_a_replica_is_left(server, ledger):
    connection = ledger._server._connection
    server.ask("REPLICAOF 127.0.0.1 1")
    with pytest.raises(LedgerError, match="against a read only replica"):
        ask(ledger, 1)
    server.ask("REPLICAOF NO ONE")

    assert ask(ledger, 1).lease == 1
    assert ledger._server._connection is not connection


def test_scripts_that_the_server_forgot_are_sent_again(server, ledger):
    server.ask("SCRIPT FLUSH")

    assert ask(ledger, 1).lease == 1


def test_a_ledger_of_which_all_is_lost_has_another_name(server, ledger):
    before = ledger.overview().server
    server.ask("FLUSHALL")
    with pytest.raises(NotJoined):
        ask(ledger, 1)
    ledger.join(HOLDER, "r1", {})

    assert ledger.overview().server.partition("/")[0] != before.partition("/")[0]


@pytest.mark.parametrize("url", [
    "redis://gov:pa55word@127.0.0.1:1/0", "redis://:pa55word@127.0.0.1:1", "rediss://gov:pa55word@127.0.0.1:1",
    "redis://gov:x/pa55word@127.0.0.1:1", "redis://gov:x?pa55word@127.0.0.1:1", "redis://gov:x#pa55word@127.0.0.1:1",
    "redis://gov:x@pa55word@127.0.0.1:1", "redis://gov:pa55word@127.0.0.1:nonsense",
    "redis://gov:pa55word@127.0.0.1:1?ssl_cert_reqs=none", "redis://gov:pa55word@[::1",
    "unix://gov:pa55word@/nowhere/s",
])
def test_no_error_says_user_or_password(url):
    with pytest.raises(LedgerError) as refused, closing(open_ledger(url)) as ledger:
        ledger.overview()

    assert "pa55word" not in str(refused.value)
    assert "gov:" not in str(refused.value)


@pytest.mark.parametrize("setting", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "socket_timeout=60", "retry=9"])
def test_a_url_cannot_loosen_anything(setting):
    name = setting.partition("=")[0]
    with pytest.raises(LedgerError, match=rf"unknown setting '{name}' \(known: db, ssl_ca_certs"):
        open_ledger(f"rediss://cache.example.org?{setting}")


def test_a_server_that_drops_keys_is_refused(request, tmp_path):
    server = started(request, tmp_path, *FORGETFUL, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")

    with pytest.raises(LedgerError, match="set maxmemory-policy noeviction"):
        RedisLedger(server.url).join(HOLDER, "r1", {})


def test_without_the_client_the_error_says_how_to_install_it():
    program = ("import sys; sys.modules['redis'] = None\n"
               "from addons.pools.opening import open_ledger; from addons.pools.protocol import LedgerError\n"
               "try: open_ledger('redis://cache.example.org')\n"
               "except LedgerError as refused: print(refused)\n")
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)

    assert "pip install 'governor-proxy[redis]'" in ran.stdout, ran.stderr


# Users.

def acl_line():
    """The user that the README tells an operator to make."""
    lines = Path(addons.pools.__file__).with_name("README.md").read_text().splitlines()
    line, = (line for line in lines if line.startswith("ACL SETUSER governor"))
    return line


def every_call(ledger):
    """Each call of the ledger, with each of its ways that sends another command."""
    ledger.rebuild({OTHER: ([Total(PURSE, 100, 1)], [])})
    ledger.join(HOLDER, "r1", {"pid": 1})
    hour = now_us() // 3_600_000_000 * 4 + 1
    for number, window in enumerate((hour - 4, hour), 10):
        ledger.acquire(HOLDER, "r1", [
            Ask(number, Purse("llm", "requests", "ann", window), 100, 1, 9),
            Ask(number + 10, Purse("hosts", "new-hosts", "ann", window), 100, 1, 1, "d1"),
            Ask(number + 20, Purse("calls", "", "", 0), 10, 1, 3, each_us=1000)], now_us())
    ledger.acquire(HOLDER, "r1", [Ask(50, Purse("calls", "", "", 0), 10, 1, 1, each_us=1000)], now_us())
    ledger.settle(HOLDER, [Settled(number, 1) for number in range(1, 9)])
    for kind in (Kind.RELEASE, Kind.SESSION, Kind.HALT):
        ledger.tell(HOLDER, News(kind, "ann", "x/w0/1", epoch=1))
    ledger.tell(HOLDER, News(Kind.RELEASE, "ann", "x/w0/1"))
    ledger.beat(HOLDER, "r1", 0, now_us(), {})
    ledger.repost(HOLDER, [Total(PURSE, 100, 3)], [Held(12, PURSE, 2, "r1", 9)])
    ledger.overview()
    ledger.leave(HOLDER)


def made_user(server, words):
    assert server.ask(" ".join(words)) == b"+OK\r\n"
    path = str(server.socket)
    return f"unix://governor:PASSWORD@{path}"


def test_the_user_of_the_readme_can_do_all_that_a_ledger_does(server):
    with closing(RedisLedger(made_user(server, acl_line().split()))) as ledger:
        every_call(ledger)


def test_the_user_of_the_readme_can_do_nothing_that_no_ledger_does(server):
    words = acl_line().split()
    needless = []
    for word in words:
        if word.startswith("+"):
            server.ask("FLUSHALL")
            server.ask("ACL DELUSER governor")
            try:
                with closing(RedisLedger(made_user(server, [each for each in words if each != word]))) as ledger:
                    every_call(ledger)
            except LedgerError:
                continue
            needless.append(word)

    assert needless == []


def test_the_user_of_the_readme_sees_no_other_keys(server):
    url = made_user(server, acl_line().split())
    with closing(redis.Redis.from_url(url)) as client:
        for command in (("HGET", "theirs", "x"), ("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


def test_a_wrong_password_is_a_clear_error(server):
    made_user(server, acl_line().split())
    with pytest.raises(LedgerError, match="invalid username-password") as refused:
        RedisLedger(f"unix://governor:pa55word@{server.socket}").overview()
    assert "pa55word" not in str(refused.value)


# TLS.

@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ours", "theirs"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return folder


@pytest.fixture
def secured(request, tmp_path, certificates):
    port = free_port()
    try:
        started(request, tmp_path, *FORGETFUL, "--tls-port", str(port), "--tls-auth-clients", "no",
                "--tls-cert-file", certificates / "ours.pem", "--tls-key-file", certificates / "ours.key")
    except AssertionError:
        pytest.skip("this redis-server was built without TLS")
    return port


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls_needs_a_certificate_that_is_trusted_and_names_the_host(secured, certificates):
    ours, theirs = (certificates / f"{name}.pem" for name in ("ours", "theirs"))
    with closing(RedisLedger(f"rediss://localhost:{secured}?ssl_ca_certs={ours}")) as ledger:
        again(lambda: ledger.join(HOLDER, "r1", {}))
        assert ask(ledger, 1).lease == 1

    for url in (f"rediss://localhost:{secured}?ssl_ca_certs={theirs}", f"rediss://localhost:{secured}",
                f"rediss://127.0.0.1:{secured}?ssl_ca_certs={ours}"):
        with pytest.raises(LedgerError, match="certificate verify failed"):
            RedisLedger(url).overview()


# Clusters.

def test_a_node_of_a_cluster_that_has_not_the_ledger_names_the_one_that_has(request, tmp_path):
    ports = [free_port(), free_port()]
    nodes = []
    for port in ports:
        folder = tmp_path / str(port)
        folder.mkdir()
        nodes.append(started(request, folder, *FORGETFUL, "--port", str(port), "--cluster-enabled", "yes",
                             "--cluster-port", str(free_port()), "--cluster-require-full-coverage", "no"))
    slot = int(nodes[0].ask("CLUSTER KEYSLOT {governor}")[1:])
    nodes[1].ask(f"CLUSTER ADDSLOTS {slot}")
    bus = nodes[1].ask("CONFIG GET cluster-port").split(b"\r\n")[-2].decode()
    nodes[0].ask(f"CLUSTER MEET 127.0.0.1 {ports[1]} {bus}")
    deadline = time.monotonic() + 30
    while str(ports[1]).encode() not in nodes[0].ask("CLUSTER SLOTS") and time.monotonic() < deadline:
        time.sleep(0.05)
    with closing(RedisLedger(f"redis://127.0.0.1:{ports[0]}")) as ledger:
        again(lambda: ledger.join(HOLDER, "r1", {}))

        every_call_of_a_member(ledger)
    assert nodes[1].ask("EXISTS {governor}:head") == b":1\r\n"


def every_call_of_a_member(ledger):
    assert ask(ledger, 1).lease == 1
    ledger.settle(HOLDER, [Settled(1, 4)])
    ledger.beat(HOLDER, "r1", 0, now_us(), {})
    assert ledger.overview().balances[0].spent == 4


# An older state.

class Process:
    """What a process does by its chain: it writes down what it was granted, draws it all, settles now and then."""

    def __init__(self, url, holder):
        self.ledger, self.holder = RedisLedger(url), holder
        self.number, self.used, self.open, self.newest, self.numbers = 0, 0, [], 0, []
        self.ledger.join(holder, "r1", {})

    def draw(self, limit, *, settles):
        self.number += 1
        grant = self.ledger.acquire(self.holder, "r1", [Ask(self.number, PURSE, limit, 1, 5)], now_us())[0]
        if grant.lease is not None:
            self.numbers.append(grant.lease)
            self.newest = grant.lease
            self.open.append(Held(grant.lease, PURSE, grant.amount, "r1", self.number))
        if settles and self.open:
            over = self.open.pop(0)
            self.used += over.amount
            self.ledger.settle(self.holder, [Settled(over.lease, over.amount)])
        return grant

    def speaks(self):
        if self.ledger.beat(self.holder, "r1", 0, now_us(), {}).repost:
            self.ledger.repost(self.holder, [Total(PURSE, 1, self.used)],
                               [*self.open, Held(self.newest, PURSE, 0, "", 0)])

    @property
    def drawn(self):
        return self.used + sum(lease.amount for lease in self.open)


def test_a_server_that_comes_back_from_an_older_dump_overspends_nothing_and_repeats_no_number(request, tmp_path):
    server = started(request, tmp_path, *FORGETFUL)
    limit = 300
    processes = [Process(server.url, f"governor/x/w{number}") for number in range(3)]
    for turn in range(12):
        processes[turn % 3].draw(limit, settles=turn % 2)
    assert server.ask("SAVE") == b"+OK\r\n"
    for turn in range(18):
        processes[turn % 3].draw(limit, settles=turn % 2)
    shutil.copy(tmp_path / "dump.rdb", tmp_path / "older.rdb")
    server.kill()
    shutil.copy(tmp_path / "older.rdb", tmp_path / "dump.rdb")
    server.start()

    for process in processes:
        assert again(lambda process=process: process.draw(limit, settles=False)).why is Why.RECOVERING
    for process in processes:
        process.speaks()
    while any(process.draw(limit, settles=True).amount for process in processes):
        assert sum(process.drawn for process in processes) <= limit

    numbers = sorted(number for process in processes for number in process.numbers)
    balance = processes[0].ledger.overview().balances[0]
    assert sum(process.drawn for process in processes) == limit == balance.spent + balance.held
    assert numbers == list(range(1, len(numbers) + 1))


def test_who_does_not_speak_after_an_older_dump_is_charged_the_largest_lease(request, tmp_path):
    server = started(request, tmp_path, *FORGETFUL)
    one, other = (Process(server.url, holder) for holder in (HOLDER, OTHER))
    one.draw(300, settles=True)
    other.draw(300, settles=True)
    server.ask("SAVE")
    forgotten = other.draw(300, settles=False).amount
    server.kill()
    server.start()
    again(one.speaks)
    balance = one.ledger.overview().balances[0]

    assert forgotten == 5
    assert balance.spent >= one.drawn + other.drawn
