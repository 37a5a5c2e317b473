"""One port for several workers: kept against everybody else, and told before anybody listens."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest
from mitmproxy.proxy.mode_specs import ProxyMode

from addons.errors import StartCode, StartRefused
from addons.workers.ports import chosen, kept


def bound(port: int, *, shares: bool) -> socket.socket:
    other = socket.socket()
    if shares:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        other.bind(("127.0.0.1", port))
    except OSError:
        other.close()
        raise
    return other


def test_names_are_not_shared_by_several_workers():
    with pytest.raises(StartRefused, match="without --workers") as refused:
        chosen(["transparent@8080", "dns@5353"], "", None)

    assert refused.value.code is StartCode.MODE_REFUSED


@pytest.mark.parametrize(("modes", "host", "port", "form"), [
    (["transparent@127.0.0.1:0"], "", None, r"transparent@127.0.0.1:(\d+)"),
    (["regular"], "127.0.0.1", 0, r"regular@(\d+)"),
    (["socks5@0"], "", None, r"socks5@(\d+)"),
    (["regular@127.0.0.1:0"], "", 8080, r"regular@127.0.0.1:(\d+)"),
])
def test_a_port_of_0_becomes_a_free_one(modes, host, port, form):
    (mode,) = chosen(modes, host, port)
    picked = ProxyMode.parse(mode).listen_port(port)

    assert mode == form.replace(r"(\d+)", str(picked)).replace("\\", "")
    with kept([(host or "127.0.0.1", picked)]):
        pass


def test_what_has_a_port_stays_as_it_is():
    modes = ["regular", "socks5@1080", "regular@127.0.0.1:8081"]

    assert chosen(modes, "127.0.0.1", 8080) == tuple(modes)


def test_a_port_that_is_kept_goes_to_nobody_who_does_not_share_it():
    (mode,) = chosen(["regular"], "127.0.0.1", 0)
    port = ProxyMode.parse(mode).listen_port(0)
    with kept([("127.0.0.1", port)]):
        with pytest.raises(OSError, match="in use"):
            bound(port, shares=False)
        with closing(bound(port, shares=True)) as worker:
            worker.listen()
            with socket.create_connection(("127.0.0.1", port), 2) as client:
                accepted, _ = worker.accept()
                accepted.close()
                assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 2)


def test_a_port_of_somebody_else_is_refused():
    with closing(bound(0, shares=False)) as other, pytest.raises(StartRefused, match="PORT_BUSY"), \
            kept([("127.0.0.1", other.getsockname()[1])]):
        pass
