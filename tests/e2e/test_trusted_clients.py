"""Every client of the trust matrix that is installed: it trusts the CA by what is laid out for it, and not without."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from mitmproxy import certs

from addons import authority
from addons.client_trust import browsers, own_settings
from addons.client_trust.laid import Laid, lay_out
from tests.conftest import SCALE
from tests.e2e import matrix
from tests.e2e.origins import Origin, serving

pytestmark = pytest.mark.e2e

README = Path(__file__).resolve().parents[2] / "certs" / "README.md"
OF_NODE = {"node fetch", "node https", "npm"}
# What reads neither a variable nor a file that one names.
WITHOUT_VARIABLES = {"gnutls-cli", "chromium"}
# What brings its own roots along and never looks at the system's.
WITHOUT_MOUNTS = {"httpx", "requests", "boto3", "grpc", "deno", "uv"} | OF_NODE


@dataclass(frozen=True)
class Stage:
    """An origin under the run's CA, a user without any trust of their own, and what was laid out for them."""

    folder: Path
    environment: dict[str, str]
    laid: Laid
    origin: Origin
    grpc_port: int
    grpc_calls: list[str]

    def fetched(self, client: str, *, variables: bool = False, mounts: bool = False) -> bool:
        """Whether the origin saw a request of the client."""
        port = self.grpc_port if client == "grpc" else self.origin.port
        url = f"https://localhost:{port}/wanted"
        command = matrix.command(client, url, self.folder, "/test.Origin/Wanted" if client == "grpc" else None)
        environment = self.environment | (dict(self.laid.variables) if variables else {})
        before = self._seen()
        subprocess.run([*(self._mounting() if mounts else []), *command], env=environment, capture_output=True,
                       timeout=120, cwd=self.folder)
        return self._seen() > before

    def _seen(self) -> int:
        return len(self.origin.seen.requests) + len(self.grpc_calls)

    def _mounting(self) -> list[str]:
        """The words that put a command where the mounts are."""
        assert all(mount.target.exists() and mount.target == mount.target.resolve() for mount in self.laid.mounts)
        binds = "".join(f"mount --bind -o {'rw' if mount.writable else 'ro'} {mount.source} {mount.target} && "
                        for mount in self.laid.mounts)
        return ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", f'{binds}exec "$@"', "sh"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("trust")
    home, run, laid = folder / "home", folder / "ca", folder / "laid"
    for each in (home, run, laid):
        each.mkdir()
    certificate = authority.for_run(run, "0123abcd", datetime.now(UTC))
    chain = leaf(run)
    environment = bare_environment(folder, home)
    matrix.prepare(folder)
    calls: list[str] = []
    with serving(chain=chain) as origin, answering(chain, calls) as port:
        environment |= {"CARGO_REGISTRIES_TEST_INDEX": f"sparse+{origin.url}/index/"}
        told = lay_out(laid, certificate.read_bytes(), environment, home)
        yield Stage(folder, environment, told, origin, port, calls)


def leaf(folder: Path) -> Path:
    """The key and certificate of an origin as mitmproxy makes them."""
    made = certs.CertStore.from_store(folder, "mitmproxy", 2048).get_cert("localhost", [x509.DNSName("localhost")])
    secret = made.privatekey.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = folder / "leaf.pem"
    chain.write_bytes(secret + made.cert.to_pem())
    return chain


def bare_environment(folder: Path, home: Path) -> dict[str, str]:
    """This process's without proxies and without anything that says what is trusted."""
    said = {*own_settings.VARIABLES, *own_settings.ADDED_TO, "WGETRC", "JAVA_TOOL_OPTIONS", "XDG_CONFIG_HOME"}
    kept = {name: value for name, value in os.environ.items()
            if name not in said and not name.lower().endswith("_proxy") and not name.startswith("PIP_")}
    real = Path.home()
    return {"RUSTUP_HOME": str(real / ".rustup"), "GOCACHE": str(real / ".cache/go-build")} | kept | {
        "HOME": str(home), "CARGO_HOME": str(folder / "cargo"), "CARGO_NET_RETRY": "0", "GIT_TERMINAL_PROMPT": "0",
        "npm_config_globalconfig": str(folder / "none"), "npm_config_userconfig": str(home / ".npmrc"),
        "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "no_proxy": "*"}


@contextlib.contextmanager
def answering(chain: Path, calls: list[str], place: str = "127.0.0.1:0") -> Iterator[int]:
    """A gRPC origin with this key and certificate: its port. What is called stands in `calls`."""
    class Origin(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            calls.append(details.method)
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

    pem = chain.read_bytes()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Origin(),))
    port = server.add_secure_port(place, grpc.ssl_server_credentials([(pem, pem)]))
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(5)


@pytest.fixture(params=matrix.FETCH)
def client(request: pytest.FixtureRequest, stage: Stage) -> str:
    name = str(request.param)
    if lacking := matrix.missing(name, stage.folder, stage.environment):
        pytest.skip(lacking)
    return name


def needs_mounts() -> None:
    if subprocess.run(["unshare", "-m" if os.geteuid() == 0 else "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace to be had here")


def test_a_client_that_was_told_nothing_refuses_the_certificate(stage: Stage, client: str) -> None:
    assert not stage.fetched(client)


@pytest.mark.skipif(SCALE < 10, reason="only with scripts/test --all")
def test_a_client_in_the_sandbox_trusts_the_certificate(stage: Stage, client: str) -> None:
    """As in `test_run_clients.py`, by which the everyday run knows it."""
    needs_mounts()

    assert stage.fetched(client, variables=True, mounts=True)


def test_the_variables_alone_do_for_clients_that_read_any(stage: Stage, client: str) -> None:
    assert stage.fetched(client, variables=True) is (client not in WITHOUT_VARIABLES)


def test_the_mounts_alone_do_for_clients_of_the_systems_store(stage: Stage, client: str) -> None:
    needs_mounts()

    assert stage.fetched(client, mounts=True) is (client not in WITHOUT_MOUNTS)


@pytest.mark.checkout
def test_the_table_of_clients_says_what_was_tried_here() -> None:
    rows = re.findall(r"^\| ([\w -]+) \| (.+) \| (yes|no|by policy or NSS) \|$", README.read_text(), re.MULTILINE)

    assert {client for client, _, _ in rows} == set(matrix.FETCH)
    assert {client for client, variable, _ in rows if variable == "none"} == WITHOUT_VARIABLES
    assert {client for client, _, system in rows if system == "no"} == WITHOUT_MOUNTS


@pytest.mark.skipif(shutil.which("chromium") is None or shutil.which("certutil") is None, reason="not installed")
@pytest.mark.parametrize("database", browsers.NSS_FOLDERS)
def test_chromium_trusts_by_the_copy_of_the_users_database_alone(stage: Stage, tmp_path: Path, database: str) -> None:
    needs_mounts()
    (tmp_path / database).mkdir(parents=True)
    assert browsers.certutil("-N", "--empty-password", "-d", f"sql:{tmp_path / database}")
    (tmp_path / "laid").mkdir()
    certificate = (stage.folder / "ca" / authority.CERTIFICATE_FILE).read_bytes()
    told = lay_out(tmp_path / "laid", certificate, stage.environment, tmp_path)
    mounts = tuple(mount for mount in told.mounts if mount.target == tmp_path / database)
    user = replace(stage, laid=Laid(told.bundle, {}, mounts), environment=stage.environment | {"HOME": str(tmp_path)})

    assert not user.fetched("chromium")
    assert user.fetched("chromium", mounts=True)
