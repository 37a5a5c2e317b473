"""`agents.json`: what may stand in it, how it changes, and how a running Governor follows it."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons import agents_file, identity
from addons.agents_file import Act, Agents, AgentsError, changed, load
from addons.errors import StartCode, StartRefused
from addons.identity import Registry
from addons.whereabouts import ADDRESSES, AGENTS, Whereabouts
from kernel.facts import Agent
from kernel.identity import LOCAL, Evidence, digest
from kernel.policy import Identity
from kernel.source_networks import SourceNetworks
from kernel.verdict import Code
from tests.conftest import scaled

NOW, LATER = "2026-01-02T03:04:05.000006Z", "2026-01-03T03:04:05.000006Z"
NOBODY = Identity()


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "agents.json"
    agents_file.durable.replace(file, b"{}\n")
    return file


def change(path, act, name="coder-1", token="gov_1", now=NOW, before_write=lambda: None):
    sha256 = digest(token) if act.gives_token else None
    agents_file.change(path, lambda agents: changed(agents, act, name, sha256, "root", now), before_write)


def bearer(token):
    return [f"Bearer {token}"]


def test_a_registered_agent_is_identified_by_its_token(path):
    registry = Registry(path)
    change(path, Act.ADD)
    registry.refresh()

    assert registry.identify(NOBODY, Evidence(bearer("gov_1"))) == (Agent("coder-1", "proxy-auth"), None)


def test_a_token_that_stands_in_no_file_holds_before_and_after_the_file_changes(path):
    registry = Registry(path, lent={digest("gov_lent"): "coder-2"})
    before = registry.identify(NOBODY, Evidence(bearer("gov_lent")))
    change(path, Act.ADD)
    registry.refresh()

    assert before == registry.identify(NOBODY, Evidence(bearer("gov_lent"))) == (Agent("coder-2", "proxy-auth"), None)
    assert registry.identify(NOBODY, Evidence()) == (None, Code.IDENTITY_REQUIRED)


def test_a_change_is_seen_within_a_tenth_of_a_second_without_a_signal(path):
    registry = Registry(path)
    change(path, Act.ADD)
    time.sleep(identity.LOOK_SECONDS + 0.02)

    assert registry.identify(NOBODY, Evidence()) == (None, Code.IDENTITY_REQUIRED)


def test_a_rotated_token_replaces_the_old_one_at_once(path):
    registry = Registry(path)
    registry.change(lambda agents: changed(agents, Act.ADD, "coder-1", digest("gov_1"), "root", NOW), lambda: None)
    registry.change(lambda agents: changed(agents, Act.ROTATE, "coder-1", digest("gov_2"), "root", LATER), lambda: None)

    assert registry.identify(NOBODY, Evidence(bearer("gov_1"))) == (None, Code.IDENTITY_REFUSED)
    assert registry.identify(NOBODY, Evidence(bearer("gov_2"))) == (Agent("coder-1", "proxy-auth"), None)


def test_after_the_last_agent_was_removed_flows_without_a_token_stay_refused(path):
    change(path, Act.ADD)
    change(path, Act.REMOVE)

    assert Registry(path).identify(NOBODY, Evidence()) == (None, Code.IDENTITY_REQUIRED)


def test_a_removed_agent_is_refused_also_where_its_token_was_not_revoked(path):
    agent = {"added": NOW, "by": "root", "removed": LATER, "tokens": [
        {"sha256": digest("gov_1"), "added": NOW, "revoked": None, "last_used": None}]}  # fmt: skip
    path.write_text(json.dumps({"v": 1, "agents": {"coder-1": agent}}))

    assert Registry(path).identify(NOBODY, Evidence(bearer("gov_1"))) == (None, Code.IDENTITY_REFUSED)


def test_a_removed_agent_is_refused_by_whatever_names_it(path):
    change(path, Act.ADD)
    change(path, Act.REMOVE)

    cert = Identity(frozenset({"cert"}))
    assert Registry(path).identify(cert, Evidence(certificate="coder-1")) == (None, Code.IDENTITY_REFUSED)
    assert Registry(path).identify(cert, Evidence(certificate="coder-2")) == (Agent("coder-2", "cert"), None)


def test_an_agent_that_is_in_no_file_is_seen_by_its_address(path):
    registry = Registry(path)
    fleet = Identity(frozenset({"source"}), networks=SourceNetworks(((ip_network("10.1.0.0/24"), "ci"),)))
    agent, _ = registry.identify(fleet, Evidence(source=ip_address("10.1.0.7")), "10.1.0.7")

    assert agent == Agent("ci", "source")
    assert set(registry.last_seen()) == {"ci"}
    assert registry.whereabouts.of("ci") == ("10.1.0.7",)


def test_an_agent_that_was_removed_can_be_added_again_with_another_token(path):
    change(path, Act.ADD)
    change(path, Act.REMOVE)
    change(path, Act.ADD, token="gov_2", now=LATER)

    agent = load(path).agents["coder-1"]
    assert (agent.removed, agent.added, len(agent.tokens)) == (None, LATER, 2)
    assert Registry(path).identify(NOBODY, Evidence(bearer("gov_1"))) == (None, Code.IDENTITY_REFUSED)


@pytest.mark.parametrize(("acts", "problem"), [
    pytest.param([Act.ADD, Act.ADD], "registered already", id="twice the same name"),
    pytest.param([Act.ROTATE], "not registered", id="rotate nobody"),
    pytest.param([Act.REMOVE], "not registered", id="remove nobody"),
    pytest.param([Act.ADD, Act.REMOVE, Act.REMOVE], "not registered", id="remove twice"),
    pytest.param([Act.ADD, Act.ROTATE], "new token", id="rotate to the token that it has"),
])  # fmt: skip
def test_a_change_without_sense_is_refused_and_nothing_is_written(path, acts, problem):
    *good, bad = acts
    for act in good:
        change(path, act)
    before = path.read_bytes()
    written = []

    with pytest.raises(AgentsError, match=problem):
        change(path, bad, before_write=lambda: written.append(1))
    assert (path.read_bytes(), written) == (before, [])


def test_the_log_is_written_before_the_file_and_a_log_that_fails_leaves_the_file(path):
    def fail():
        raise OSError("no log")

    with pytest.raises(OSError, match="no log"):
        change(path, Act.ADD, before_write=fail)
    assert load(path) == Agents()


def test_the_file_is_private_whatever_the_umask(path):
    old = os.umask(0)
    try:
        change(path, Act.ADD)
    finally:
        os.umask(old)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_token_is_in_the_file(path):
    change(path, Act.ADD, token="gov_secret")

    assert "gov_secret" not in path.read_text()


def test_two_writers_lose_nothing(path):
    threads = [threading.Thread(target=change, args=(path, Act.ADD, f"a{n}", f"gov_{n}")) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(load(path).agents) == 12


GOOD = {"added": NOW, "by": "root", "removed": None, "tokens": []}
GOOD_TOKEN = {"sha256": "ab" * 32, "added": NOW, "revoked": None, "last_used": None}


@pytest.mark.parametrize("content", [
    pytest.param("", id="empty"),
    pytest.param("[]", id="a list"),
    pytest.param('{"v": 2, "agents": {}}', id="a later version"),
    pytest.param('{"v": 1, "agents": []}', id="agents as a list"),
    pytest.param('{"v": 1, "agents": {}, "more": 1}', id="an unknown key"),
    pytest.param(json.dumps({"v": 1, "agents": {"Local!": GOOD}}), id="a bad name"),
    pytest.param(json.dumps({"v": 1, "agents": {"a": {**GOOD, "groups": []}}}), id="an unknown key of an agent"),
    pytest.param(json.dumps({"v": 1, "agents": {"a": {**GOOD, "added": "yesterday"}}}), id="a bad time"),
    pytest.param(json.dumps({"v": 1, "agents": {"a": {**GOOD, "removed": ""}}}), id="an empty time"),
    pytest.param(json.dumps({"v": 1, "agents": {"a": {**GOOD, "by": 1}}}), id="an operator that is no name"),
    pytest.param(json.dumps({"v": 1, "agents": {"a": {**GOOD, "tokens": [{**GOOD_TOKEN, "sha256": "AB"}]}}}),
                 id="a bad digest"),
    pytest.param(json.dumps({"v": 1, "agents": {"a": {**GOOD, "tokens": [{**GOOD_TOKEN, "revoked": False}]}}}),
                 id="a revocation that is no time"),
    pytest.param("[" * 100_000, id="deeper than Python goes"),
])  # fmt: skip
def test_a_damaged_file_refuses_to_start_and_says_where(path, content):
    path.write_text(content)

    with pytest.raises(StartRefused) as refused:
        Registry(path)
    assert refused.value.code is StartCode.HOME_INCOMPLETE
    assert str(path) in refused.value.text


def test_a_missing_file_refuses_to_start_because_every_flow_would_be_local(path):
    path.unlink()

    with pytest.raises(StartRefused):
        Registry(path)


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o640, 0o604])
def test_a_file_that_others_can_open_refuses_to_start(path, mode):
    path.chmod(mode)

    with pytest.raises(StartRefused, match="open to others"):
        Registry(path)


def test_a_link_in_the_place_of_the_file_refuses_to_start(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")

    with pytest.raises(StartRefused):
        Registry(path)


def damage(path):
    path.write_text("{")


def empty(path):
    path.write_text("{}")


def remove(path):
    path.unlink()


def expose(path):
    path.chmod(0o666)


@pytest.mark.parametrize("harm", [damage, empty, remove, expose])
def test_a_file_that_goes_bad_leaves_the_tokens_in_force_and_is_reported_once(path, harm):
    change(path, Act.ADD)
    reported = []
    registry = Registry(path, reported.append)
    harm(path)
    registry.refresh()
    registry.refresh()

    assert registry.identify(NOBODY, Evidence(bearer("gov_1"))) == (Agent("coder-1", "proxy-auth"), None)
    assert registry.identify(NOBODY, Evidence()) == (None, Code.IDENTITY_REQUIRED)
    assert len(reported) == 1


def test_a_file_that_is_repaired_is_taken_again(path):
    change(path, Act.ADD)
    good = path.read_bytes()
    registry = Registry(path)
    damage(path)
    registry.refresh()
    agents_file.durable.replace(path, good)
    change(path, Act.ADD, "coder-2", "gov_2")
    registry.refresh()

    assert registry.identify(NOBODY, Evidence(bearer("gov_2"))) == (Agent("coder-2", "proxy-auth"), None)


def test_the_last_use_of_a_token_is_known_at_once_and_is_in_the_file_after_a_flush(path):
    change(path, Act.ADD)
    registry = Registry(path)
    registry.identify(NOBODY, Evidence(bearer("gov_1")))
    shown = registry.last_seen()["coder-1"]
    registry.flush()

    assert shown == load(path).agents["coder-1"].last_used
    assert shown > NOW


def test_a_flush_revives_no_token_that_was_revoked_meanwhile(path):
    change(path, Act.ADD)
    registry = Registry(path)
    registry.identify(NOBODY, Evidence(bearer("gov_1")))
    change(path, Act.REMOVE, now=LATER)
    registry.flush()

    agent = load(path).agents["coder-1"]
    assert (agent.removed, agent.tokens[0].revoked, agent.tokens[0].last_used) == (LATER, LATER, None)


def test_a_flow_of_nobody_leaves_no_last_use(path):
    registry = Registry(path)

    assert registry.identify(NOBODY, Evidence()) == (LOCAL, None)
    assert registry.last_seen() == {}


def test_it_is_known_from_where_an_agent_came(path):
    change(path, Act.ADD)
    registry = Registry(path)
    for address in ("192.0.2.2", "192.0.2.1", "192.0.2.2"):
        registry.identify(NOBODY, Evidence(bearer("gov_1")), address)
    registry.identify(NOBODY, Evidence(bearer("gov_wrong")), "192.0.2.9")

    assert registry.whereabouts.of("coder-1") == ("192.0.2.1", "192.0.2.2")
    assert registry.whereabouts.of("coder-2") == ()


def test_only_the_last_addresses_of_an_agent_and_only_so_many_agents_are_kept():
    seen = Whereabouts()
    for number in range(AGENTS + 1):
        seen.saw(f"a{number}", "192.0.2.1")
    for number in range(ADDRESSES + 1):
        seen.saw("a7", f"192.0.2.{number + 100}")

    assert (seen.of("a0"), seen.of("a1")) == ((), ("192.0.2.1",))
    assert len(seen.of("a7")) == ADDRESSES
    assert f"192.0.2.{ADDRESSES + 100}" in seen.of("a7")


@settings(max_examples=scaled(50))
@given(st.lists(st.tuples(st.sampled_from(Act), st.sampled_from(["a", "b"])), max_size=8))
def test_at_most_one_token_of_an_agent_holds_and_known_never_ends(steps):
    agents, known = Agents(), False
    for number, (act, name) in enumerate(steps):
        sha256 = digest(str(number)) if act.gives_token else None
        try:
            agents = changed(agents, act, name, sha256, "root", NOW)
        except AgentsError:
            continue
        held = list(agents.tokens().agents.values())
        assert len(held) == len(set(held))
        assert agents.tokens().known or not known
        known = agents.tokens().known


def test_a_change_that_could_not_be_read_is_read_again(path, monkeypatch):
    change(path, Act.ADD)
    registry = Registry(path)
    change(path, Act.REMOVE)
    with monkeypatch.context() as broken:
        broken.setattr(agents_file, "load", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            registry.refresh()

    registry.refresh()

    assert registry.identify(NOBODY, Evidence(bearer("gov_1"))) == (None, Code.IDENTITY_REFUSED)
