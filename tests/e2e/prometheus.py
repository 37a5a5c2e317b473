"""A real Prometheus on loopback for a test: it scrapes every second and answers queries."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.process import free_port

START_SECONDS = 30.0


class Prometheus:
    """The HTTP API of a running Prometheus. Never through a proxy, whatever the environment says."""

    live = False
    """Whether it scrapes a real Governor, and not numbers that a test made."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of one call; AssertionError with Prometheus' own words where it is refused."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with self._opener.open(url, timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                raise ConnectionError("Prometheus is starting") from None
            raise AssertionError(f"{parameters}: {json.load(error)['error']}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        result = self.get("query", query=expression)["result"]
        assert isinstance(result, list)
        return result

    def wait_for(self, expression: str, seconds: float = START_SECONDS) -> None:
        """Return when the expression has a result."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if self.query(expression):
                    return
            assert time.monotonic() < deadline, f"{expression} had no result for {seconds:g} s"
            time.sleep(0.2)


@contextlib.contextmanager
def scraping(folder: Path, targets: Sequence[str], rules: Path) -> Iterator[Prometheus]:
    """Prometheus with the job `governor` on these targets and with these rules."""
    configuration = folder / "prometheus.json"
    configuration.write_text(json.dumps({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "governor", "static_configs": [{"targets": list(targets)}]}],
    }))  # fmt: skip
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address={address}", "--log.level=error"]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        yield Prometheus(address)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
