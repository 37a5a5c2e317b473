"""One origin pair and one Governor a module, for the tests that do not need one of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.origins import Origin, make_certificate, serving
from tests.e2e.process import Governor, started


@dataclass(frozen=True)
class Place:
    """A Governor between its clients and two origins."""

    governor: Governor
    http: Origin
    https: Origin


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The origins' key with certificate, and what a client of theirs trusts."""
    return make_certificate(tmp_path_factory.mktemp("origin"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Place]:
    chain, trusted = certificate
    with (serving() as plain, serving(chain=chain) as tls,
          started(tmp_path_factory.mktemp("governor"), trust=trusted) as governor):
        yield Place(governor, plain, tls)


@pytest.fixture(scope="module")
def _last_test() -> list[float]:
    """When the last test of the module began."""
    return [0.0]


@pytest.fixture
def within_the_rate_of_refusals(_last_test: list[float]) -> None:
    """Have the test begin only where it can be refused in full: twenty of a source are in each second."""
    time.sleep(max(0.0, _last_test[0] + 0.06 - time.monotonic()))
    _last_test[0] = time.monotonic()
