"""A halt that spreads through a real Governor: who needs the agent is held back, is told so, and goes on afterwards."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request

import pytest

from tests.e2e.process import POLICY, started

pytestmark = pytest.mark.e2e

SPREADING = POLICY.replace("  - deny: no-gists\n", """\
  - deny: bad
    to: localhost
    paths: ["/bad/**"]
    risk: 50
  - deny: no-gists
""") + """\
agents: {coders: [coder-*], deps: [dep-*], others: [other-*]}
counters: {risk: {limit: 100, then: halt}}
cascade:
  depends: {deps: [coders]}
  on-halt: {reasons: [OVERRISK], do: DO}
  blast-radius: 34%
"""


class Agents:
    """Agents with tokens, who ask a Governor for an origin's pages."""

    def __init__(self, governor, url, *names):
        self.governor, self.url = governor, url
        self.tokens = {name: json.loads(governor.verb("agents", "add", name, "--json").stdout)["token"]
                       for name in names}

    def ask(self, name, path="/a", *more):
        """The code of a refusal, else the status."""
        url = path if "://" in path else f"{self.url}{path}"
        status, body, _ = self.governor.curl("-U", f"{name}:{self.tokens[name]}", url, *more)
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(body).get("code", status)
        return status

    def me(self, name):
        _, body, _ = self.governor.curl("-U", f"{name}:{self.tokens[name]}", "http://governor.internal/me")
        return json.loads(body)

    def show(self, name):
        return json.loads(self.governor.verb("agents", "show", name, "--json").stdout)


@contextlib.contextmanager
def halted_coder(folder, place, do):
    """dep-1 and dep-2 need coder-1, which has just earned its halt."""
    with started(folder, SPREADING.replace("DO", do)) as governor:
        agents = Agents(governor, place.http.url, "coder-1", "dep-1", "dep-2", "other-1")
        assert [agents.ask(name) for name in agents.tokens] == [200, 200, 200, 200]
        assert [agents.ask("coder-1", "/bad/x") for _ in range(2)] == ["RULE_DENY", "OVERRISK"]
        yield governor, agents


def metric(governor, line):
    with urllib.request.urlopen(governor.metrics, timeout=10) as answer:
        return line in answer.read().decode().splitlines()


def audited(governor):
    replay = json.loads(governor.verb("audit", "replay", str(governor.home), "--json").stdout)
    return governor.verify()["result"], replay["result"], replay["first_divergence"]


def test_who_needs_a_halted_agent_only_reads_and_the_one_beyond_the_radius_is_slowed_down(tmp_path, place):
    with halted_coder(tmp_path, place, "quarantine") as (governor, agents):
        codes = [agents.ask("coder-1"), agents.ask("dep-1"), agents.ask("dep-1", "/a", "-d", "x"),
                 agents.ask("other-1", "/a", "-d", "x")]
        slowed = [agents.ask("dep-2") for _ in range(2)]
        (first, second) = governor.entries("preventive")
        decided = [each for each in governor.entries("decision") if each["code"] == "QUARANTINED"][-1]
        shown, me = agents.show("dep-1"), agents.me("dep-1")
        status = json.loads(governor.verb("status", "--json").stdout)

        assert codes == ["AGENT_HALTED", 200, "QUARANTINED", 200]
        assert slowed == [200, "RATE_LIMITED"]
        assert [(each["agent"], each["do"], each["degraded"]) for each in (first, second)] == [
            ("dep-1", "quarantine", False), ("dep-2", "throttle", True)]
        chain = {"origin": "coder-1", "path": ["coder-1", "dep-1"], "hop": 1, "entry": f"main/{first['seq']}"}
        assert decided["cause"] == shown["cause"] == chain
        assert (shown["state"], shown["reason"], shown["until"]) == ("quarantined", "CASCADE", first["until"])
        assert (me["quarantined_until"], me["throttled_until"], "coder-1" in str(me)) == (first["until"], None, False)
        assert any("beyond its blast radius" in hint for hint in status["hints"])
        assert metric(governor, 'governor_preventive_acts_total{degraded="yes",do="throttle"} 1.0')
        assert metric(governor, 'governor_held_back{do="quarantine"} 1.0')
        assert "is slowed down until" in governor.verb("agents", "list").stdout
        assert "coder-1 > dep-1 (main/" in governor.verb("agents", "show", "dep-1").stdout
        assert audited(governor) == ("verified", "equal", None)


def test_what_holds_an_agent_back_is_over_when_its_time_is_and_the_halt_is_not(tmp_path, place):
    with halted_coder(tmp_path, place, "quarantine, for: 3s") as (governor, agents):
        deadline = time.monotonic() + 60
        while agents.ask("dep-1", "/a", "-d", "x") != 200:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        until = governor.entries("preventive")[0]["until"]
        written = [each for each in governor.entries("decision") if each["in"]["method"] == "POST"]

        assert [each["code"] for each in written] == [
            "QUARANTINED" if each["ts"] < until else "ALLOW" for each in written]
        assert [each["ts"] < until for each in written] == ["cause" in each for each in written]
        assert (agents.show("dep-1")["state"], agents.ask("coder-1")) == ("running", "AGENT_HALTED")
        assert audited(governor) == ("verified", "equal", None)


def test_a_halt_that_spread_survives_a_restart_and_ends_with_a_release(tmp_path, place):
    with halted_coder(tmp_path, place, "halt") as (governor, agents):
        assert agents.ask("dep-1") == "AGENT_HALTED"
        halt = governor.entries("halt")[-1]
        assert (halt["agent"], halt["reason"], halt["cause"]["origin"]) == ("dep-1", "CASCADE", "coder-1")
        assert metric(governor, 'governor_halts_total{reason="CASCADE"} 1.0')
        tokens = agents.tokens
    alone = json.loads(governor.verb("agents", "show", "dep-1", "--json").stdout)
    with started(tmp_path, SPREADING.replace("DO", "halt")) as governor:
        agents = Agents(governor, place.http.url)
        agents.tokens = tokens
        assert (alone["state"], alone["reason"], agents.ask("dep-1")) == ("halted", "CASCADE", "AGENT_HALTED")
        governor.verb("agents", "release", "dep-1", "--reason", "looked at")
        assert agents.ask("dep-1", "/a", "-d", "x") == 200
        assert audited(governor) == ("verified", "equal", None)


def test_an_operators_halt_holds_back_nobody(tmp_path, place):
    with started(tmp_path, SPREADING.replace("DO", "halt")) as governor:
        agents = Agents(governor, place.http.url, "coder-1", "dep-1")
        agents.ask("dep-1")
        governor.verb("agents", "halt", "coder-1", "--reason", "a test")

        assert [agents.ask("coder-1"), agents.ask("dep-1")] == ["AGENT_HALTED", 200]
        assert governor.entries("preventive") == []
