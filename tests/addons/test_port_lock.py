"""One Governor a port."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from addons import port_lock as module
from addons.errors import StartCode, StartRefused
from addons.port_lock import port_lock

ROOT = Path(module.__file__).resolve().parents[1]


@pytest.fixture
def port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""], ids=["address", "name", "every address"])
def test_a_free_port_is_given_and_given_again_after_its_end(port, host):
    for _ in range(2):
        with port_lock(host, port), socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((host if host != "localhost" else "127.0.0.1", port))
            server.listen()


@pytest.mark.parametrize("host", ["127.0.0.1", ""], ids=["the address", "every address"])
def test_a_port_on_which_anybody_listens_is_refused(port, host):
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()

        with pytest.raises(StartRefused, match="--listen-port") as refused, port_lock(host, port):
            pass
    assert refused.value.code is StartCode.PORT_BUSY


def test_a_port_for_names_is_refused_where_anybody_has_it_for_datagrams(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))

        with port_lock("127.0.0.1", port):
            pass
        with pytest.raises(StartRefused) as refused, port_lock("127.0.0.1", port, datagrams=True):
            pass
    assert refused.value.code is StartCode.PORT_BUSY


@pytest.mark.skipif(sys.platform != "linux", reason="the lock's name space is Linux's")
def test_another_process_is_refused_even_before_the_first_one_listens(port):
    program = f"from addons.port_lock import port_lock\nwith port_lock('127.0.0.1', {port}): pass"
    with port_lock("127.0.0.1", port):
        other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert f"PORT_BUSY: 127.0.0.1:{port}: another Governor serves there" in other.stderr


def test_an_address_that_is_not_ours_is_refused(port):
    with pytest.raises(StartRefused, match=r"192\.0\.2\.1"), port_lock("192.0.2.1", port):
        pass
