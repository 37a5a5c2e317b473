"""Every client of the trust matrix in `governor run`, with nothing configured: allowed, refused, or told why not.

Each tier has one run in which all clients fetch, so that a start is paid for once.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import SCALE
from tests.e2e import matrix
from tests.e2e.network_hosts import needs_networks
from tests.e2e.origins import Seen, make_certificate, serving
from tests.e2e.run_place import ADDRESS, OTHER_ADDRESS, RunPlace, inside, needs_run_tools, run_place
from tests.e2e.test_trusted_clients import answering, bare_environment

pytestmark = [pytest.mark.e2e, needs_networks, needs_run_tools]

POLICY = """\
version: 1
rules:
  - allow: the-api
    to: [api.example.org, calls.example.org, untrusted.example.org]
    address: 198.18.79.0/24
    methods: any
    except: {paths: ["/denied/**", "/test.Origin/Denied"]}
never:
  - to: [metadata, link-local]
"""
NAMES = {"api.example.org": ADDRESS, "calls.example.org": OTHER_ADDRESS, "untrusted.example.org": OTHER_ADDRESS}
CALLS_PORT = 8443
# What looks at no proxy variable of its own accord: in tier bwrap it reaches nothing.
KNOWS_NO_PROXY = {"openssl", "gnutls-cli", "urllib3", "aiohttp", "php streams"}
# They know NODE_USE_ENV_PROXY from 22.21 and 24.5 on.
OF_NODE = {"node fetch", "node https"}
# The others take turns with nothing new to say in tier bwrap, so they have theirs in the long run of the tests.
EVERYDAY_IN_BWRAP = {"curl", "git", "requests", "grpc", "npm", "java", "php streams"}
# How a client says it that keeps the status to itself.
REFUSED = {"grpc": "PERMISSION_DENIED", "chromium": "by Governor: "}
UNVOUCHED = {"grpc": "Stream removed", "chromium": "Bad Gateway by Governor: ORIGIN_FAILED"}
DRIVER = """
import json, os, subprocess, sys
asked, said = json.load(open(sys.argv[1])), {}
for name, (words, more) in asked.items():
    try:
        done = subprocess.run(words, capture_output=True, timeout=60, env={**os.environ, **more})
        said[name] = [done.returncode, (done.stdout + done.stderr).decode(errors="replace")]
    except subprocess.TimeoutExpired as late:
        said[name] = [-1, "timeout " + str(late.stdout) + str(late.stderr)]
json.dump(said, open(sys.argv[2], "w"))
"""


@dataclass(frozen=True)
class Outcome:
    """What became of all clients in one tier, and what the origins saw of it."""

    said: dict[str, tuple[int, str]]
    missing: dict[str, str]
    origin: Seen
    calls: list[str]
    untrusted: Seen

    def reached(self, client: str, what: str) -> bool:
        if client == "grpc":
            return f"/test.Origin/{what.title()}" in self.calls
        return any(f"/{what}/{slug(client)}" in line for line in (*self.origin.lines, *self.untrusted.lines))


def slug(client: str) -> str:
    return client.replace(" ", "-")


@pytest.fixture(scope="module", params=["netns", "bwrap"])
def tier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def outcome(tier: str, tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Outcome]:
    folder = tmp_path_factory.mktemp(tier)
    chain, trusted = certificate
    (folder / "bad").mkdir()
    bad, _ = make_certificate(folder / "bad")
    calls: list[str] = []
    with ExitStack() as made:
        policy = POLICY.replace("    methods: any", f"    ports: [443, {CALLS_PORT}]\n    methods: any")
        place = made.enter_context(run_place(folder, policy, NAMES, trusted))
        with inside(place):
            origin = made.enter_context(serving(chain=chain, place=(ADDRESS, 443)))
            untrusted = made.enter_context(serving(chain=bad, place=(OTHER_ADDRESS, 443)))
            made.enter_context(answering(chain, calls, f"{OTHER_ADDRESS}:{CALLS_PORT}"))
        environment = bare_environment(place.work, place.user) | {"SSL_CERT_FILE": str(trusted)}
        for name in ("GOVERNOR_HOME", "XDG_CONFIG_HOME"):
            environment[name] = place.environment[name]
        del environment["no_proxy"]
        matrix.prepare(place.work)
        (place.user / ".curlrc").write_text('header = "x-own: of the user"\n')
        (place.user / ".gitconfig").write_text("[http]\n  extraHeader = x-own: of the user\n")
        (place.user / ".npmrc").write_text("user-agent=own-of-the-user\n")
        missing = {client: why for client in matrix.FETCH if (why := left_out(client, tier) or
                   matrix.missing(client, place.work, {**environment, "HOME": str(Path.home())}))}
        asked = {f"{what} {client}": fetching(client, what, place) for client in matrix.FETCH if client not in missing
                 for what in ("wanted", "denied", "untrusted")}
        (place.work / "asked.json").write_text(json.dumps(asked))
        told = place.run(sys.executable, "-c", DRIVER, "asked.json", "said.json", options=("--tier", tier),
                         env=environment, timeout=900)
        assert told.returncode == 0, told.stderr
        said = json.loads((place.work / "said.json").read_text())
        yield Outcome(said, missing, origin.seen, calls, untrusted.seen)


def fetching(client: str, what: str, place: RunPlace) -> tuple[list[str], dict[str, str]]:
    """The command of a client and the variables that it needs to have something to fetch."""
    host = "untrusted" if what == "untrusted" else "calls" if client == "grpc" else "api"
    port = f":{CALLS_PORT}" if host == "calls" else ""
    url = f"https://{host}.example.org{port}/{what}/{slug(client)}"
    method = f"/test.Origin/{what.title()}" if client == "grpc" else None
    return matrix.command(client, url, place.work, method), {"CARGO_REGISTRIES_TEST_INDEX": f"sparse+{url}/"}


@pytest.fixture(params=matrix.FETCH)
def client(request: pytest.FixtureRequest, outcome: Outcome, tier: str) -> str:
    name = str(request.param)
    if name in outcome.missing:
        pytest.skip(outcome.missing[name])
    return name


def test_what_is_allowed_is_fetched(outcome: Outcome, client: str, tier: str) -> None:
    assert outcome.reached(client, "wanted") is knows_the_way(client, tier), outcome.said[f"wanted {client}"]


def test_what_is_not_allowed_is_refused(outcome: Outcome, client: str, tier: str) -> None:
    status, text = outcome.said[f"denied {client}"]

    assert not outcome.reached(client, "denied")
    if knows_the_way(client, tier):
        assert REFUSED.get(client, "403") in text, (status, text)


def test_an_origin_that_nobody_vouches_for_is_a_bad_gateway(outcome: Outcome, client: str, tier: str) -> None:
    status, text = outcome.said[f"untrusted {client}"]

    assert not outcome.reached(client, "untrusted")
    if knows_the_way(client, tier):
        assert UNVOUCHED.get(client, "502") in text, (status, text)


@pytest.mark.parametrize("client", ["curl", "git"])
def test_the_users_own_configuration_is_in_effect(outcome: Outcome, client: str) -> None:
    asked = [headers for _, path, headers, _ in outcome.origin.requests if f"/wanted/{client}" in path]

    assert asked[0]["x-own"] == "of the user"


def test_npm_keeps_the_users_own_configuration(outcome: Outcome) -> None:
    if "npm" in outcome.missing:
        pytest.skip(outcome.missing["npm"])
    asked = [headers for _, path, headers, _ in outcome.origin.requests if "/wanted/npm" in path]

    assert asked[0]["user-agent"] == "own-of-the-user"


def left_out(client: str, tier: str) -> str | None:
    if tier == "netns" or client in EVERYDAY_IN_BWRAP or SCALE > 1:
        return None
    return "only with scripts/test --all"


def knows_the_way(client: str, tier: str) -> bool:
    return tier == "netns" or client not in (KNOWS_NO_PROXY if node_knows_proxies() else KNOWS_NO_PROXY | OF_NODE)


@functools.cache
def node_knows_proxies() -> bool:
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    major, minor, _ = map(int, told.strip().lstrip("v").split("."))
    return (major == 22 and minor >= 21) or (major, minor) >= (24, 5)
