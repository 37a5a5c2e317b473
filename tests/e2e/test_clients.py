"""Real clients through a real Governor: allowed they work as they do directly, refused they show why."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests

from tests.e2e.conftest import Place
from tests.e2e.origins import Origin, _Handler, serving
from tests.e2e.process import Governor, started
from tests.e2e.wire import trusting

pytestmark = pytest.mark.e2e

PHRASE = "Forbidden by Governor: DEFAULT_DENY"
DETAIL = "Governor refused GET to localhost: no rule allows this"


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


@pytest.fixture(params=["http", "https"])
def origin(request: pytest.FixtureRequest, place: Place) -> Origin:
    """Each of the two origins in turn: plain, and over TLS through a tunnel."""
    return place.http if request.param == "http" else place.https


def wanted(origin: Origin) -> str:
    return f"{origin.url}/wanted"


def denied(origin: Origin) -> str:
    return f"{origin.url}/denied/thing"


@pytest.fixture
def untouched(place: Place) -> Iterator[None]:
    """Whatever a test does, no origin sees it."""
    before = [list(origin.seen.requests) for origin in (place.http, place.https)]
    yield

    assert [origin.seen.requests for origin in (place.http, place.https)] == before


# curl and wget


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_gets_what_is_allowed(place: Place, origin: Origin, version: str) -> None:
    assert place.governor.curl(version, wanted(origin)) == (200, "GET /wanted\n", "")


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_shows_the_body_of_a_refusal(place: Place, origin: Origin, version: str, untouched: None) -> None:
    status, body, _ = place.governor.curl(version, denied(origin))

    assert status == 403
    assert json.loads(body)["detail"] == DETAIL


def test_curl_that_fails_on_errors_names_the_status(place: Place, origin: Origin, untouched: None) -> None:
    _, _, told = place.governor.curl("-f", denied(origin))

    assert "returned error: 403" in told


@needs("wget")
def test_wget_gets_what_is_allowed(place: Place, origin: Origin) -> None:
    result = place.governor.run("wget", "-q", "-O-", f"--ca-certificate={place.governor.ca}", wanted(origin))

    assert (result.returncode, result.stdout) == (0, "GET /wanted\n")


@needs("wget")
def test_wget_shows_the_reason_phrase_of_a_refusal(place: Place, origin: Origin, untouched: None) -> None:
    result = place.governor.run("wget", "-O-", f"--ca-certificate={place.governor.ca}", denied(origin))

    assert result.returncode == 8
    assert f"403: {PHRASE}" in result.stderr


# Python


def test_requests_gets_what_is_allowed(place: Place, origin: Origin) -> None:
    assert requests_through(place.governor).get(wanted(origin)).text == "GET /wanted\n"


def test_requests_shows_the_reason_phrase_of_a_refusal(place: Place, origin: Origin, untouched: None) -> None:
    answer = requests_through(place.governor).get(denied(origin))

    with pytest.raises(requests.HTTPError, match=PHRASE):
        answer.raise_for_status()
    assert answer.json()["error"] == DETAIL


def requests_through(governor: Governor) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.proxies, session.verify = {"http": governor.proxy, "https": governor.proxy}, str(governor.ca)
    return session


def test_httpx_gets_what_is_allowed(place: Place, origin: Origin) -> None:
    with httpx_through(place.governor) as client:
        assert client.get(wanted(origin)).text == "GET /wanted\n"


def test_httpx_shows_the_reason_phrase_of_a_refusal(place: Place, origin: Origin, untouched: None) -> None:
    with httpx_through(place.governor) as client:
        answer = client.get(denied(origin))

    with pytest.raises(httpx.HTTPStatusError, match=PHRASE):
        answer.raise_for_status()
    assert answer.json()["error"] == DETAIL


def httpx_through(governor: Governor) -> httpx.Client:
    return httpx.Client(proxy=governor.proxy, verify=trusting(governor.ca), trust_env=False)


async def test_aiohttp_gets_what_is_allowed(place: Place, origin: Origin) -> None:
    async with (aiohttp.ClientSession() as session,
                session.get(wanted(origin), proxy=place.governor.proxy, ssl=trusting(place.governor.ca)) as answer):
        assert await answer.text() == "GET /wanted\n"


async def test_aiohttp_shows_the_reason_phrase_of_a_refusal(place: Place, origin: Origin, untouched: None) -> None:
    async with (aiohttp.ClientSession() as session,
                session.get(denied(origin), proxy=place.governor.proxy, ssl=trusting(place.governor.ca)) as answer):
        with pytest.raises(aiohttp.ClientResponseError, match=PHRASE):
            answer.raise_for_status()


def test_urllib_gets_what_is_allowed_and_shows_the_reason_phrase_of_a_refusal(place: Place, origin: Origin) -> None:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({"http": place.governor.proxy, "https": place.governor.proxy}),
        urllib.request.HTTPSHandler(context=trusting(place.governor.ca)))

    assert opener.open(wanted(origin)).read() == b"GET /wanted\n"
    with pytest.raises(urllib.error.HTTPError, match=PHRASE):
        opener.open(denied(origin))


# JSON-RPC and browsers

CALL = {"jsonrpc": "2.0", "id": "call-7", "method": "tools/call", "params": {"name": "search"}}


def test_a_json_rpc_call_is_answered_with_an_error_under_its_id(
        place: Place, origin: Origin, untouched: None) -> None:
    answer = requests_through(place.governor).post(denied(origin), json=CALL)

    told = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/json")
    assert (told["jsonrpc"], told["id"], told["error"]["code"]) == ("2.0", "call-7", 403)
    assert told["error"]["message"].startswith("Governor refused POST to localhost: no rule allows this. Stop: ")
    assert told["error"]["data"]["entry"] == answer.headers["x-governor-entry"]


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_compressed_json_rpc_call_is_one_too(place: Place, origin: Origin, encoding: str, untouched: None) -> None:
    body = json.dumps(CALL).encode()
    answer = requests_through(place.governor).post(
        denied(origin), gzip.compress(body) if encoding == "gzip" else body, headers={"content-encoding": encoding})

    assert answer.json()["id"] == "call-7"


def test_a_json_rpc_batch_gets_the_problem(place: Place, origin: Origin, untouched: None) -> None:
    answer = requests_through(place.governor).post(denied(origin), json=[CALL, CALL])

    assert answer.headers["content-type"] == "application/problem+json"


def test_a_browser_shows_a_page(place: Place, origin: Origin, tmp_path: Path, untouched: None) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is installed")
    # Of itself it asks localhost without a proxy; a CA of one's own it takes only from a store of the machine's user.
    alone = ["--proxy-bypass-list=<-loopback>", "--ignore-certificate-errors", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path}"]
    shown = place.governor.run(browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                               *alone, f"--proxy-server={place.governor.proxy}", "--dump-dom", denied(origin),
                               env={"HOME": str(tmp_path)})

    assert f"<h1>{PHRASE}</h1>" in shown.stdout, shown.stderr
    assert f"<p>{DETAIL}.</p>" in shown.stdout


# Node: its built-in clients read no proxy variables, so programs tunnel by hand.

NODE = """
const http = require("http"), tls = require("tls"), fs = require("fs");
const [proxy, ca, target] = [new URL(process.argv[2]), process.argv[3], new URL(process.argv[4])];
const show = answer => {
  let body = "";
  answer.on("data", chunk => body += chunk);
  answer.on("end", () => {
    console.log(JSON.stringify({status: answer.statusCode, reason: answer.statusMessage, body}));
    process.exit(0);
  });
};
if (target.protocol === "http:") {
  http.get({host: proxy.hostname, port: proxy.port, path: target.href, headers: {host: target.host}}, show);
} else {
  const asked = http.request({host: proxy.hostname, port: proxy.port, method: "CONNECT", path: target.host});
  asked.on("connect", (_, socket) => {
    const inside = tls.connect({socket, servername: target.hostname, ca: fs.readFileSync(ca)}, () =>
      http.get({createConnection: () => inside, path: target.pathname, headers: {host: target.host}}, show));
  }).end();
}
"""


@needs("node")
def test_node_gets_what_is_allowed(place: Place, origin: Origin) -> None:
    assert node(place.governor, wanted(origin)) == {"status": 200, "reason": "OK", "body": "GET /wanted\n"}


@needs("node")
def test_node_has_the_reason_phrase_and_the_body_of_a_refusal(place: Place, origin: Origin, untouched: None) -> None:
    answer = node(place.governor, denied(origin))

    assert (answer["status"], answer["reason"]) == (403, PHRASE)
    assert json.loads(str(answer["body"]))["detail"] == DETAIL


def node(governor: Governor, url: str) -> dict[str, object]:
    result = governor.run("node", "-e", NODE, "-", governor.proxy, str(governor.ca), url)
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


# git, npm and pip: origins that serve what those clients fetch.


@dataclass(frozen=True)
class Forge:
    """One Governor before two origins that serve a repository, a package registry and a package index."""

    governor: Governor
    http: Origin
    https: Origin
    folder: Path


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Forge]:
    folder = tmp_path_factory.mktemp("forge")
    handler = type("ForgeHandler", (_ForgeHandler,), {"folder": folder})
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(serving(handler))
        tls = stack.enter_context(serving(handler, certificate[0]))
        governor = stack.enter_context(started(tmp_path_factory.mktemp("forge-governor"), trust=certificate[1]))
        yield Forge(governor, plain, tls, folder)


class _ForgeHandler(_Handler):
    """Smart HTTP by git's own program, a registry with one package, an index with one wheel."""

    folder: Path

    def reply(self) -> None:
        path = self.path.partition("?")[0]
        if ".git/" in path:
            self._git(path)
        elif path.endswith(".tgz"):
            self._answer_with("application/octet-stream", TARBALL)
        elif path.endswith(".whl"):
            self._answer_with("application/octet-stream", WHEEL)
        elif path.endswith("/simple/tiny-wheel/"):
            link = f"/{path.strip('/').rpartition('simple')[0]}{WHEEL_NAME}"
            self._answer_with("text/html", f'<!DOCTYPE html><a href="{link}">{WHEEL_NAME}</a>'.encode())
        else:
            self._answer_with("application/json", json.dumps(self._packument()).encode())

    def _packument(self) -> dict[str, object]:
        scheme = "https" if isinstance(self.connection, ssl.SSLSocket) else "http"
        url = f"{scheme}://{self.headers['host']}/tiny-package-1.0.0.tgz"
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(TARBALL).digest()).decode()
        version = {"name": "tiny-package", "version": "1.0.0", "description": "as small as can be",
                   "dist": {"tarball": url, "integrity": integrity}}
        return {"name": "tiny-package", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}

    def _answer_with(self, content_type: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _git(self, path: str) -> None:
        body = self.seen.requests[-1][3]
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        environment = os.environ | {
            "GIT_PROJECT_ROOT": str(self.folder), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "REQUEST_METHOD": self.command, "QUERY_STRING": self.path.partition("?")[2],
            "CONTENT_TYPE": self.headers.get("content-type", ""), "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""), "GIT_CONFIG_NOSYSTEM": "1"}
        produced = subprocess.run(["git", "-c", "safe.directory=*", "http-backend"], input=body, env=environment,
                                  capture_output=True, check=True).stdout
        head, _, content = produced.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        content_type = next(value for name, value in lines if name.lower() == "content-type")
        self._answer_with(content_type, content)


def _tarball() -> bytes:
    content, buffer = b'{"name": "tiny-package", "version": "1.0.0"}', io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/package.json")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        information = "tiny_wheel-1.0.dist-info"
        archive.writestr("tiny_wheel.py", "")
        archive.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return buffer.getvalue()


TARBALL, WHEEL, WHEEL_NAME = _tarball(), _wheel(), "tiny_wheel-1.0-py3-none-any.whl"


@pytest.fixture(params=["http", "https"])
def store(request: pytest.FixtureRequest, forge: Forge) -> str:
    """The URL of each of the two origins."""
    return forge.http.url if request.param == "http" else forge.https.url


GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}


@pytest.fixture(scope="module")
def repository(forge: Forge) -> None:
    """A repository with one commit, at an allowed path and at a denied one."""
    if subprocess.run(["git", "http-backend"], capture_output=True).stderr.startswith(b"git: 'http-backend'"):
        pytest.skip("git has no http-backend")
    work = forge.folder / "work"
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@example.org"]
    (forge.folder / "denied").mkdir()
    for command in (
        ["git", "init", "-q", str(work)],
        ["git", "-C", str(work), *identity, "commit", "-q", "--allow-empty", "-m", "the only one"],
        ["git", "clone", "-q", "--bare", str(work), str(forge.folder / "tiny.git")],
        ["git", "clone", "-q", "--bare", str(work), str(forge.folder / "denied" / "tiny.git")],
    ):
        subprocess.run(command, check=True, env=os.environ | GIT)


@needs("git")
def test_git_clones_what_is_allowed(forge: Forge, store: str, repository: None, tmp_path: Path) -> None:
    result = forge.governor.run("git", "clone", f"{store}/tiny.git", str(tmp_path / "clone"), env=GIT)

    assert result.returncode == 0, result.stderr
    log = subprocess.run(["git", "-C", str(tmp_path / "clone"), "log", "--format=%s"], capture_output=True, text=True)
    assert log.stdout == "the only one\n"


@needs("git")
def test_git_shows_the_text_of_a_refusal(forge: Forge, store: str, repository: None, tmp_path: Path) -> None:
    before = len(forge.http.seen.requests + forge.https.seen.requests)
    result = forge.governor.run("git", "clone", f"{store}/denied/tiny.git", str(tmp_path / "clone"), env=GIT)

    assert result.returncode == 128
    assert f"remote: {DETAIL}\nremote: Stop:" in result.stderr
    assert len(forge.http.seen.requests + forge.https.seen.requests) == before


@needs("npm")
def test_npm_views_and_installs_what_is_allowed(forge: Forge, store: str, tmp_path: Path) -> None:
    viewed = npm(forge.governor, tmp_path, store, "view", "tiny-package", "description")
    installed = npm(forge.governor, tmp_path, store, "install", "tiny-package", "--prefix", str(tmp_path))

    assert viewed.stdout == "as small as can be\n", viewed.stderr
    assert installed.returncode == 0, installed.stderr
    assert (tmp_path / "node_modules" / "tiny-package" / "package.json").exists()


@needs("npm")
def test_npm_shows_the_sentence_of_a_refusal(forge: Forge, store: str, tmp_path: Path) -> None:
    result = npm(forge.governor, tmp_path, f"{store}/denied", "view", "tiny-package")

    assert result.returncode != 0
    assert f"403 {PHRASE}" in result.stderr
    assert DETAIL in result.stderr


def npm(governor: Governor, folder: Path, registry: str, *command: str) -> subprocess.CompletedProcess[str]:
    quiet = {f"npm_config_{name}": "false" for name in ("audit", "fund", "update_notifier")}
    alone = {"npm_config_cache": str(folder / "cache"), "npm_config_userconfig": str(folder / "user"),
             "npm_config_globalconfig": str(folder / "global"), "npm_config_fetch_retries": "0", "HOME": str(folder)}
    return governor.run("npm", *command, "--registry", registry, env=quiet | alone, cwd=folder)


def test_pip_downloads_what_is_allowed(forge: Forge, store: str, tmp_path: Path) -> None:
    result = pip(forge.governor, f"{store}/simple", tmp_path)

    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / WHEEL_NAME).read_bytes() == WHEEL


def test_pip_finds_nothing_where_it_is_refused(forge: Forge, store: str, tmp_path: Path) -> None:
    result = pip(forge.governor, f"{store}/denied/simple", tmp_path)

    assert result.returncode == 1
    assert "No matching distribution found for tiny-wheel" in result.stderr


def pip(governor: Governor, index: str, folder: Path) -> subprocess.CompletedProcess[str]:
    alone = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "0",
             "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("pip is not installed in this environment")
    return governor.run(sys.executable, "-m", "pip", "download", "--no-deps", "--index-url", index, "tiny-wheel",
                        "-d", str(folder), env=alone)
