"""The Governors that the ways out share: one watched, one between two unruly scripts, one in mitmweb."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.name_server import NameServer, answering
from tests.e2e.origins import counting, serving
from tests.e2e.process import free_port, started
from tests.e2e.ways_out.scripts import unruly
from tests.e2e.ways_out.ways import POLICY, Web, Yard

# Each worker of a run has a name server of its own.
NAMES_AT = f"127.53.0.{2 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))}"
DENY_ELSEWHERE = "  - deny: elsewhere\n    to: localhost\n    ports: {port}\nnever:"
MOUNT = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Yard]:
    folder, (chain, trusted) = tmp_path_factory.mktemp("yard"), certificate
    with contextlib.ExitStack() as stack:
        names, wrapper = _own_names(stack, folder)
        trap, plain = stack.enter_context(counting()), stack.enter_context(serving())
        tls = stack.enter_context(serving(chain=chain))
        governor = stack.enter_context(started(folder, POLICY, trust=trusted, wrapper=wrapper))
        yield Yard(governor, names, trap, plain, tls)


def _own_names(stack: contextlib.ExitStack, folder: Path) -> tuple[NameServer | None, list[str]]:
    """A name server that only the Governor asks, and the words that start it so; that takes root."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        return None, []
    try:
        names = stack.enter_context(answering({}, NAMES_AT))
    except OSError:
        return None, []
    configuration = folder / "resolv.conf"
    configuration.write_text(f"nameserver {names.address}\noptions timeout:1 attempts:1\n")
    return names, ["unshare", "-m", "sh", "-c", MOUNT, str(configuration)]


@pytest.fixture
def names(yard: Yard) -> Iterator[dict[str, str]]:
    """The names that the Governor can resolve, for one test; it asks for each of them anew."""
    if yard.names is None:
        pytest.skip("only root can give a process its own name server (unshare -m)")
    known: dict[str, str] = {}
    yard.names.names = known
    yield known
    yard.names.names = {}


@pytest.fixture(scope="session")
def beside(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Yard]:
    folder, (chain, trusted) = tmp_path_factory.mktemp("beside"), certificate
    with contextlib.ExitStack() as stack:
        trap, plain = stack.enter_context(counting()), stack.enter_context(serving())
        tls = stack.enter_context(serving(chain=chain))
        ahead, behind = (unruly(folder, header, trap.port) for header in ("x-ahead", "x-behind"))
        policy = POLICY.replace("never:", DENY_ELSEWHERE.format(port=trap.port))
        governor = stack.enter_context(started(folder, policy, ["-s", str(behind)], trust=trusted, ahead=[ahead]))
        yield Yard(governor, None, trap, plain, tls)


@contextlib.contextmanager
def mitmweb(folder: Path, *scripts: Path) -> Iterator[Web]:
    port = free_port()
    words = [word for script in scripts for word in ("-s", str(script))]
    options = [*words, "--no-web-open-browser", "--web-host", "127.0.0.1", "--web-port", str(port)]
    with started(folder, POLICY, options, program="mitmweb") as governor:
        yield Web(governor, port)


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    with mitmweb(folder, unruly(folder, "x-behind", 1)) as operator:
        yield operator
