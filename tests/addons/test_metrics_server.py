"""The metrics port: three paths, honest answers, and no way to hold it up."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time

import pytest

from addons import metrics_server
from addons.errors import StartCode, StartRefused
from addons.metrics import Metrics
from addons.metrics_server import MAX_CONNECTIONS, MAX_HEAD_BYTES, MetricsServer


class State:
    """What the server is told when it asks; None fails."""

    def __init__(self):
        self.turns, self.checks = True, {"policy": True, "lane": True}

    def health(self):
        return self._known(self.turns)

    def ready(self):
        return self._known(self.checks)

    def _known(self, value):
        if value is None:
            raise ValueError("gov_secret")
        return value


@pytest.fixture
def state():
    return State()


@pytest.fixture
def metrics():
    return Metrics("1", "2")


@pytest.fixture
def server(state, metrics):
    server = MetricsServer(("127.0.0.1", 0), metrics, state.health, state.ready)
    server.start()
    yield server
    server.stop()


def get(server, path, method="GET", headers=()):
    connection = http.client.HTTPConnection(*server.address, timeout=5)
    connection.request(method, path, headers=dict(headers))
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, response.getheader("content-type"), body


def test_metrics_are_served_as_prometheus_reads_them(server):
    status, content_type, body = get(server, "/metrics")

    assert (status, content_type.partition(";")[0]) == (200, "text/plain")
    assert b"governor_decisions_total" in body


def test_the_form_follows_the_accept_header(server):
    _, content_type, body = get(server, "/metrics?x=1", headers={"Accept": "application/openmetrics-text"})

    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(("turns", "status"), [(True, 200), (False, 503)])
def test_healthz_says_whether_the_loop_turns(server, state, turns, status):
    state.turns = turns

    assert (get(server, "/healthz")[0], json.loads(get(server, "/healthz")[2])) == (status, {"healthy": turns})


@pytest.mark.parametrize(("lane", "status"), [(True, 200), (False, 503)])
def test_readyz_names_every_check_and_is_ready_when_all_are(server, state, lane, status):
    state.checks["lane"] = lane
    answer = get(server, "/readyz")

    assert answer[:2] == (status, "application/json")
    assert json.loads(answer[2]) == {"ready": lane, "checks": {"policy": True, "lane": lane}}


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics/../healthz", "//metrics", "/favicon.ico", "metrics", ""])
def test_nothing_else_is_served(server, path):
    with socket.create_connection(server.address, timeout=5) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        answer = connection.makefile("rb").read()

    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_nothing_can_be_changed(server, method):
    assert get(server, "/metrics", method)[0] == 405


def test_a_head_request_gets_no_body(server):
    assert get(server, "/healthz", "HEAD") == (200, "application/json", b"")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_a_check_that_fails_answers_500_with_the_class_alone(server, state, metrics, path):
    state.turns = state.checks = None
    status, _, body = get(server, path)

    assert (status, body) == (500, b"ValueError\n")
    assert b'governor_faults_total{where="metrics_server"} 1.0' in metrics.render()[0]


def test_a_port_that_is_taken_refuses_to_start_and_says_what_to_do(server, metrics):
    with pytest.raises(StartRefused, match=r"127\.0\.0\.1:\d+: .*governor_metrics") as refused:
        MetricsServer(server.address, metrics, bool, dict).start()
    assert refused.value.code is StartCode.PORT_BUSY


def test_an_address_that_is_not_of_this_machine_refuses_to_start(metrics):
    with pytest.raises(StartRefused) as refused:
        MetricsServer(("192.0.2.1", 0), metrics, bool, dict).start()
    assert refused.value.code is StartCode.PORT_BUSY


def test_after_a_stop_the_port_is_free_and_a_second_stop_is_nothing(metrics):
    server = MetricsServer(("127.0.0.1", 0), metrics, lambda: True, dict)
    server.stop()
    server.start()
    again = MetricsServer(server.address, metrics, lambda: True, dict)
    server.stop()
    server.stop()
    again.start()

    assert get(again, "/healthz")[0] == 200
    again.stop()


def test_clients_that_stall_are_cut_and_cost_no_one_else(server, monkeypatch):
    monkeypatch.setattr(metrics_server, "EXCHANGE_SECONDS", 0.4)
    stalled = [socket.create_connection(server.address, timeout=5) for _ in range(MAX_CONNECTIONS - 1)]
    for connection in stalled:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n")
    started = time.monotonic()
    during = get(server, "/healthz")[0]
    elapsed = time.monotonic() - started
    for connection in stalled:
        assert connection.recv(1) == b""
        connection.close()

    assert (during, elapsed < 0.4) == (200, True)
    assert get(server, "/healthz")[0] == 200


def test_a_client_that_sends_byte_after_byte_gets_no_longer_than_one_that_is_silent(server, monkeypatch):
    monkeypatch.setattr(metrics_server, "EXCHANGE_SECONDS", 0.3)
    started = time.monotonic()
    with socket.create_connection(server.address, timeout=5) as connection, contextlib.suppress(ConnectionError):
        while time.monotonic() - started < 5:
            connection.sendall(b"G")
            time.sleep(0.02)

    assert time.monotonic() - started < 2


def test_a_head_without_end_is_cut_at_once(server):
    started = time.monotonic()
    with socket.create_connection(server.address, timeout=5) as connection:
        try:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nx: " + b"a" * (4 * MAX_HEAD_BYTES))
            answer = connection.recv(1)
        except ConnectionError:
            answer = b""

    assert (answer, time.monotonic() - started < 2) == (b"", True)


@pytest.mark.parametrize("noise", [b"", b" ", b"\x00\xff\xfe", b"\x16\x03\x01\x02\x00\x01"])
def test_noise_is_answered_or_cut_and_the_server_goes_on(server, noise):
    with socket.create_connection(server.address, timeout=5) as connection:
        connection.sendall(noise + b"\r\n\r\n")
        connection.makefile("rb").read()

    assert get(server, "/healthz")[0] == 200


def test_more_connections_than_the_bound_are_turned_away_at_once(server):
    held = [socket.create_connection(server.address, timeout=5) for _ in range(MAX_CONNECTIONS)]
    time.sleep(0.1)
    started = time.monotonic()
    with socket.create_connection(server.address, timeout=5) as extra:
        try:
            turned_away = extra.recv(1) == b""
        except ConnectionError:
            turned_away = True
    elapsed = time.monotonic() - started
    for connection in held:
        connection.close()

    assert (turned_away, elapsed < 2) == (True, True)
