"""Every client of the trust matrix that is installed: it trusts the CA by what is laid out for it, and not without."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
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
from tests.e2e.origins import Origin, serving

pytestmark = pytest.mark.e2e

README = Path(__file__).resolve().parents[2] / "certs" / "README.md"
OF_NODE = {"node fetch", "node https", "npm"}
# What reads neither a variable nor a file that one names.
WITHOUT_VARIABLES = {"gnutls-cli", "chromium"}
# What brings its own roots along and never looks at the system's.
WITHOUT_MOUNTS = {"httpx", "requests", "boto3", "grpc", "deno", "uv"} | OF_NODE
PYTHON = {
    "urllib": "import urllib.request as u; u.urlopen(url).read()",
    "urllib3": "import urllib3; urllib3.PoolManager(retries=False).request('GET', url)",
    "requests": "import requests; requests.get(url)",
    "httpx": "import httpx; httpx.get(url)",
    "aiohttp": """
import aiohttp, asyncio
async def get():
    async with aiohttp.ClientSession() as session, session.get(url): pass
asyncio.run(get())""",
    "boto3": """
import boto3, botocore.config
c = botocore.config.Config(retries={'max_attempts': 0})
s3 = boto3.client('s3', endpoint_url=url, aws_access_key_id='a', aws_secret_access_key='b', region_name='r', config=c)
try: s3.list_buckets()
except botocore.parsers.ResponseParserError: pass""",
    "openai": """
import openai
openai.OpenAI(base_url=url, api_key='k', max_retries=0).models.list()""",
    "grpc": """
import grpc
channel = grpc.secure_channel(url.partition('//')[2].partition('/')[0], grpc.ssl_channel_credentials())
channel.unary_unary('/test.Origin/Wanted')(b'', timeout=5)""",
}
ASKING = "printf 'GET /wanted HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' |"
FETCH = {
    "curl": ("curl", "-sS", "URL"),
    "wget": ("wget", "-q", "-O-", "--tries=1", "URL"),
    "git": ("git", "ls-remote", "URL"),
    "openssl": ("sh", "-c", f"{ASKING} openssl s_client -quiet -verify_return_error -connect localhost:PORT"),
    "gnutls-cli": ("sh", "-c", f"{ASKING} gnutls-cli -p PORT localhost"),
    **{name: (sys.executable, "-c", f"url = 'URL'\n{text}") for name, text in PYTHON.items()},
    "pip": (sys.executable, "-m", "pip", "download", "--retries", "0", "--no-deps", "--index-url", "URL", "tiny"),
    "uv": ("uv", "pip", "install", "--no-cache", "--target", "FOLDER/uv", "--index-url", "URL", "tiny"),
    "node fetch": ("node", "-e", "fetch('URL').catch(e => { console.error(e); process.exit(1) })"),
    "node https": ("node", "-e", "require('https').get('URL', r => r.resume())"),
    "npm": ("npm", "view", "--fetch-retries=0", "--registry", "URL", "tiny"),
    "deno": ("deno", "eval", "await fetch('URL')"),
    "bun": ("bun", "-e", "await fetch('URL')"),
    "java": ("java", "FOLDER/Fetch.java", "URL"),
    "go": ("FOLDER/fetch", "URL"),
    "cargo": ("cargo", "fetch", "--manifest-path", "FOLDER/Cargo.toml"),
    "ruby": ("ruby", "-rnet/http", "-e", "Net::HTTP.get(URI('URL'))"),
    "php streams": ("php", "-r", "exit(@file_get_contents('URL') === false ? 1 : 0);"),
    "php curl": ("php", "-r", "$c = curl_init('URL'); exit(curl_exec($c) === false ? 1 : 0);"),
    "chromium": ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--no-proxy-server", "--user-data-dir=FOLDER/profile", "--dump-dom", "URL"),
}
JAVA = """
import java.net.URI; import java.net.http.*;
public class Fetch { public static void main(String[] a) throws Exception {
  HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(a[0])).build(),
                                  HttpResponse.BodyHandlers.ofString()); } }
"""
GO = """
package main
import ("net/http"; "os")
func main() { if _, err := http.Get(os.Args[1]); err != nil { println(err.Error()); os.Exit(1) } }
"""
CARGO = """
[package]
name = "empty"
version = "0.1.0"
edition = "2021"
[lib]
path = "lib.rs"
[dependencies]
tiny = { version = "1", registry = "test" }
"""


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
        command = [word.replace("URL", url).replace("PORT", str(port)).replace("FOLDER", str(self.folder))
                   for word in FETCH[client]]
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
    (folder / "Fetch.java").write_text(JAVA)
    (folder / "Cargo.toml").write_text(CARGO)
    (folder / "lib.rs").touch()
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
def answering(chain: Path, calls: list[str]) -> Iterator[int]:
    """A gRPC origin with this key and certificate: its port. What is called stands in `calls`."""
    class Origin(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            calls.append(details.method)
            return grpc.unary_unary_rpc_method_handler(lambda request, context: request)

    pem = chain.read_bytes()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Origin(),))
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)]))
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(5)


@pytest.fixture(params=FETCH)
def client(request: pytest.FixtureRequest, stage: Stage) -> str:
    name = str(request.param)
    tool = {"go": "go", "openssl": "openssl", "gnutls-cli": "gnutls-cli"}.get(name, FETCH[name][0])
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    if name == "pip" and subprocess.run([tool, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("this Python has no pip")
    if name == "go" and not (stage.folder / "fetch").exists():
        (stage.folder / "fetch.go").write_text(GO)
        subprocess.run(["go", "build", "-o", stage.folder / "fetch", stage.folder / "fetch.go"], check=True,
                       env=stage.environment | {"GO111MODULE": "off", "CGO_ENABLED": "0"})
    return name


def needs_mounts() -> None:
    if subprocess.run(["unshare", "-m" if os.geteuid() == 0 else "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no mount namespace to be had here")


def test_a_client_that_was_told_nothing_refuses_the_certificate(stage: Stage, client: str) -> None:
    assert not stage.fetched(client)


def test_a_client_in_the_sandbox_trusts_the_certificate(stage: Stage, client: str) -> None:
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

    assert {client for client, _, _ in rows} == set(FETCH)
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
