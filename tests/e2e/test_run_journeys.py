"""What people do with tools, in `governor run` as outside: the same status, the same words, the same files."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.network_hosts import needs_networks
from tests.e2e.origins import Origin, serving
from tests.e2e.package_server import GO_MODULE, PIECES, Packages
from tests.e2e.run_place import ADDRESS, RunPlace, inside, needs_run_tools, run_place

pytestmark = [pytest.mark.e2e, needs_networks, needs_run_tools]

POLICY = """\
version: 1
rules:
  - allow: the-packages
    to: api.example.org
    address: 198.18.79.0/24
    methods: any
never:
  - to: [metadata, link-local]
"""
CHAT = """
import openai
asked = openai.OpenAI(base_url="https://api.example.org/v1", api_key="k", max_retries=0).chat.completions.create(
    model="m", messages=[{"role": "user", "content": "Hello?"}], stream=True)
for piece in asked:
    print(piece.choices[0].delta.content, flush=True)
"""
BROWSER = """
const { chromium } = require('playwright-core');
(async () => {
  const browser = await chromium.launch({executablePath: process.argv[2], args: ['--no-sandbox', '--disable-gpu']});
  const page = await browser.newPage();
  const got = await page.goto('https://api.example.org/page');
  console.log(got.status(), (await page.textContent('body')).trim());
  await browser.close();
})().catch(e => { console.error(e); process.exit(1); });
"""
GO_PROGRAM = f"""
package main
import ("fmt"; "{GO_MODULE}")
func main() {{ fmt.Println(tiny.Word()) }}
"""
MANIFEST = """
[package]
name = "empty"
version = "0.1.0"
edition = "2021"
[dependencies]
tiny = { version = "1", registry = "test" }
"""


@dataclass(frozen=True)
class Journey:
    """A place and the origin of all packages in it."""

    place: RunPlace
    origin: Origin
    released: threading.Semaphore

    def both(self, *command: str, env: dict[str, str] | None = None) -> tuple[Outcome, Outcome]:
        """What became of a command outside and in a run, each in a directory of its own."""
        more = {**self.place.environment, **(env or {})}
        places = [self.place.work / name for name in ("outside", "inside")]
        for each in places:
            shutil.copytree(self.place.work / "template", each, dirs_exist_ok=True)
        outside = subprocess.run([*self.place.outside(), *command], cwd=places[0], env=more, capture_output=True,
                                 text=True, timeout=120)
        held = self.place.run(*command, cwd=places[1], env=more, options=("--quiet",))
        return tuple(Outcome(done.returncode, done.stdout, done.stderr, files(where))  # type: ignore[return-value]
                     for done, where in zip((outside, held), places, strict=True))


@dataclass(frozen=True)
class Outcome:
    status: int
    said: str
    complained: str
    files: dict[str, tuple[int, int]]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """The files below a folder with their owner and size."""
    return {str(path.relative_to(folder)): (path.stat().st_uid, path.stat().st_size)
            for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def journey(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Journey]:
    chain, trusted = certificate
    folder = tmp_path_factory.mktemp("journey")
    released = threading.Semaphore(0)
    repository(folder)
    handler = type("Handler", (Packages,), {"repositories": folder / "git", "released": released})
    with run_place(folder, POLICY, {"api.example.org": ADDRESS}, trusted) as place:
        with inside(place):
            serving_at = serving(handler, chain=chain, place=(ADDRESS, 443))
            origin = serving_at.__enter__()
        try:
            yield Journey(place, origin, released)
        finally:
            serving_at.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def _template(journey: Journey) -> Iterator[None]:
    (journey.place.work / "template").mkdir()
    yield
    for each in journey.place.work.iterdir():
        shutil.rmtree(each)


def repository(folder: Path) -> None:
    (folder / "src").mkdir()
    (folder / "src" / "README").write_text("tiny\n")
    git = ["git", "-C", str(folder / "src"), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "README"], ["commit", "-qm", "First"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    subprocess.run(["git", "clone", "-q", "--bare", folder / "src", folder / "git" / "tiny.git"], check=True)


def needs(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def test_npm_install_is_as_outside(journey: Journey) -> None:
    needs("npm")
    (journey.place.work / "template" / "package.json").write_text('{"name": "mine", "version": "1.0.0"}')
    env = {"npm_config_cafile": journey.place.environment["SSL_CERT_FILE"], "npm_config_audit": "false"}

    outside, held = journey.both("npm", "install", "--registry", "https://api.example.org/npm/", "tiny",
                                 env={**env, "npm_config_cache": str(journey.place.work / "template" / "cache")})

    assert (held.status, held.complained) == (outside.status, outside.complained) == (0, "")
    assert held.files["node_modules/tiny/index.js"] == (os.geteuid(), 24)
    assert no_caches(held.files) == no_caches(outside.files)


def no_caches(found: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {name: known for name, known in found.items() if not name.startswith("cache/")}


def test_npm_says_what_was_refused_as_it_says_it_outside(journey: Journey) -> None:
    needs("npm")

    done = journey.place.run("npm", "view", "--fetch-retries=0", "--registry", "https://other.example.org/", "tiny")

    assert done.returncode == 1
    assert "EAI_AGAIN" in done.stderr or "ENOTFOUND" in done.stderr, done.stderr


def test_pip_install_is_as_outside(journey: Journey) -> None:
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("this Python has no pip")
    outside, held = journey.both(sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--isolated",
                                 "--index-url", "https://api.example.org/pip/", "--target", "lib", "tiny")

    assert held.status == 0, held.complained
    assert held.files["lib/tiny.py"] == (os.geteuid(), 14)
    assert (held.status, held.said) == (outside.status, outside.said)
    assert held.files.keys() == outside.files.keys()


def test_git_clone_is_as_outside(journey: Journey) -> None:
    needs("git")
    outside, held = journey.both("git", "clone", "https://api.example.org/git/tiny.git",
                                 env={"GIT_SSL_CAINFO": journey.place.environment["SSL_CERT_FILE"]})

    assert held.status == outside.status == 0, held.complained
    assert held.files["tiny/README"] == (os.geteuid(), 5)
    assert held.complained == outside.complained
    assert held.files.keys() == outside.files.keys()


def test_cargo_fetch_is_as_outside(journey: Journey) -> None:
    needs("cargo")
    template = journey.place.work / "template"
    (template / "Cargo.toml").write_text(MANIFEST)
    (template / "src").mkdir()
    (template / "src" / "lib.rs").touch()
    env = {"CARGO_REGISTRIES_TEST_INDEX": "sparse+https://api.example.org/cargo/", "CARGO_HOME": "cargo",
           "RUSTUP_HOME": str(Path.home() / ".rustup"), "CARGO_NET_RETRY": "0"}

    outside, held = journey.both("cargo", "fetch", env=env)

    assert held.status == outside.status == 0, held.complained
    assert held.complained == outside.complained
    assert held.files["Cargo.lock"] == outside.files["Cargo.lock"]


def test_go_fetches_and_runs_as_outside(journey: Journey) -> None:
    needs("go")
    template = journey.place.work / "template"
    (template / "main.go").write_text(GO_PROGRAM)
    (template / "go.mod").write_text(f"module example.org/mine\n\ngo 1.19\n\nrequire {GO_MODULE} v1.0.0\n")
    cache = os.environ.get("GOCACHE", str(Path.home() / ".cache" / "go-build"))
    env = {"GOPROXY": "https://api.example.org/go", "GONOSUMDB": "*", "GOFLAGS": "-mod=mod -modcacherw",
           "GOPATH": str(journey.place.user / "go"), "GOCACHE": cache, "GOTOOLCHAIN": "local"}

    outside, held = journey.both("go", "run", "main.go", env=env)

    assert (held.status, held.said) == (outside.status, outside.said) == (0, "tiny\n"), held.complained


def test_a_browser_that_a_script_drives_sees_the_page(journey: Journey) -> None:
    needs("node", "npm", "chromium")
    folders = [os.environ.get("NODE_PATH", ""),
               subprocess.run(["npm", "root", "-g"], capture_output=True, text=True).stdout.strip()]
    env = {"NODE_PATH": os.pathsep.join(filter(None, folders))}
    if subprocess.run(["node", "-e", "require('playwright-core')"], env={**os.environ, **env},
                      capture_output=True).returncode:
        pytest.skip("playwright-core is not installed")
    (journey.place.work / "template" / "browser.js").write_text(BROWSER)

    done = journey.place.run("node", "template/browser.js", shutil.which("chromium") or "", env=env)

    assert (done.returncode, done.stdout) == (0, "200 GET /page\n"), done.stderr


def test_each_piece_of_a_chat_arrives_before_the_next_is_sent(journey: Journey) -> None:
    command = journey.place.command("run", "--quiet", "--policy", str(journey.place.policy), "--", sys.executable, "-c",
                                    CHAT)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=journey.place.environment,
                          cwd=journey.place.work) as process:
        assert process.stdout is not None
        heard = []
        for _ in PIECES:
            journey.released.release()
            heard.append(process.stdout.readline().removesuffix("\n"))

        assert process.wait(30) == 0

    assert tuple(heard) == PIECES


def test_a_large_download_is_whole(journey: Journey) -> None:
    done = journey.place.run("curl", "-sS", "-o", "big", "https://api.example.org/big/50000000", options=("--quiet",))

    assert (done.returncode, done.stderr) == (0, "")
    assert (journey.place.work / "big").stat().st_size == 50_000_000
    (journey.place.work / "big").unlink()


def test_sockets_that_the_command_could_not_reach_are_in_nobodys_way(journey: Journey, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(closed / "s"))
        listening.listen()
        os.chown(closed, 12345, 12345)
        closed.chmod(0o700)

        done = journey.place.run("true", options=("--quiet",))

    assert (done.returncode, done.stderr) == (0, "")


def test_a_socket_in_reach_leads_nowhere(journey: Journey, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        done = journey.place.run("curl", "-sS", "--unix-socket", str(tmp_path / "s"), "http://localhost/",
                                 options=("--quiet",))

    assert done.returncode == 7


def test_the_users_nss_database_can_be_written_and_stays_as_it_was(journey: Journey) -> None:
    needs("certutil")
    database = journey.place.user / ".pki" / "nssdb"
    database.mkdir(parents=True)
    subprocess.run(["certutil", "-N", "--empty-password", "-d", f"sql:{database}"], check=True)
    before = (database / "cert9.db").read_bytes()

    done = journey.place.run("sh", "-c", f"touch {database}/new && certutil -L -d sql:{database}")

    assert "governor-" in done.stdout, done.stderr
    assert (database / "cert9.db").read_bytes() == before
    assert not (database / "new").exists()
