"""Real Redis servers, each in a folder of its own and reached by a socket in it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
KEPT = ("--appendonly", "yes", "--appendfsync", "everysec")
FORGETFUL = ("--appendonly", "no")


def free_port():
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))
        return plug.getsockname()[1]


class RedisServer:
    """A server that keeps its data in `folder`, started with `arguments`."""

    def __init__(self, folder, *arguments):
        self.folder, self.socket = folder, folder / "s"
        self.url = f"unix://{self.socket}"
        self._arguments = arguments
        self._process = None

    def start(self):
        self.socket.unlink(missing_ok=True)
        # Where a test gives it a port, that is a free one of this address; on others somebody may use it.
        command = ["redis-server", "--bind", "127.0.0.1", "--port", "0", "--unixsocket", self.socket, "--save", "",
                   "--dir", self.folder, *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while self.ask("PING") != b"+PONG\r\n":
            assert self._process.poll() is None, "redis-server does not start"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)
        return self

    def ask(self, line):
        """The first answer to a command in one line; nothing where nobody listens."""
        try:
            with socket.socket(socket.AF_UNIX) as plug:
                plug.settimeout(5)
                plug.connect(os.fspath(self.socket))
                plug.sendall(line.encode() + b"\r\n")
                return plug.recv(65536)
        except OSError:
            return b""

    def kill(self):
        self._process.kill()
        self._process.wait()

    def pause(self):
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def stop(self):
        if self._process is not None:
            self.go_on()
            self.kill()


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory):
    """A server in memory alone."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), *FORGETFUL).start()
    yield server
    server.stop()
