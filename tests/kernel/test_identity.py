"""Who sent a flow: the table of DESIGN's section on identity, and that nothing an agent sends breaks it."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.facts import Agent
from kernel.identity import ANONYMOUS, LOCAL, Evidence, Tokens, digest, identify, valid_id
from kernel.policy import Identity
from kernel.source_networks import SourceNetworks, source_address
from kernel.verdict import Code
from tests.conftest import scaled

TOKEN, OTHERS_TOKEN, REVOKED = "gov_coder", "gov_reviewer", "gov_old"
KNOWN = Tokens(
    {digest(TOKEN): "coder-1", digest(OTHERS_TOKEN): "reviewer"}, frozenset({"coder-1", "reviewer", "gone"}), known=True
)
CODER = Agent("coder-1", "proxy-auth")


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("headers", [
    pytest.param([], id="no header"),
    pytest.param(["Bearer whatever"], id="a header that nobody can check"),
])  # fmt: skip
@pytest.mark.parametrize("anonymous", [False, True])
def test_until_one_is_known_every_flow_is_the_agent_local(headers, anonymous):
    assert identify(Tokens(), Identity(anonymous=anonymous), Evidence(headers)) == (LOCAL, None)


def test_a_source_in_the_policy_makes_identity_required():
    assert identify(Tokens(), Identity(frozenset({"proxy-auth"})), Evidence()) == (None, Code.IDENTITY_REQUIRED)


def test_anonymous_as_the_only_source_makes_none_known():
    assert identify(Tokens(), Identity(frozenset({"anonymous"}), anonymous=True), Evidence()) == (LOCAL, None)


def test_a_flow_without_a_token_is_refused_once_one_is_known():
    assert identify(KNOWN, Identity(), Evidence()) == (None, Code.IDENTITY_REQUIRED)


def test_revoked_tokens_alone_keep_identity_required():
    tokens = Tokens({}, frozenset({"gone"}), known=True)

    assert identify(tokens, Identity(), Evidence()) == (None, Code.IDENTITY_REQUIRED)


def test_a_flow_without_a_token_is_anonymous_where_the_policy_allows_it():
    assert identify(KNOWN, Identity(anonymous=True), Evidence()) == (ANONYMOUS, None)


@pytest.mark.parametrize("header", [
    pytest.param(f"Bearer {TOKEN}", id="bearer"),
    pytest.param(f"bEARER  {TOKEN} ", id="the scheme in any case, spaces around"),
    pytest.param(basic("coder-1", TOKEN), id="basic with its own name"),
    pytest.param(basic("", TOKEN), id="basic without a user"),
    pytest.param(basic("whoever", TOKEN), id="basic with a name that nobody has"),
])  # fmt: skip
def test_a_token_that_holds_names_its_agent(header):
    assert identify(KNOWN, Identity(), Evidence([header])) == (CODER, None)


@pytest.mark.parametrize("headers", [
    pytest.param([f"Bearer {REVOKED}"], id="unknown or revoked"),
    pytest.param([f"Bearer {digest(TOKEN)}"], id="the digest in place of the token"),
    pytest.param([basic("reviewer", TOKEN)], id="the name of another agent"),
    pytest.param([basic("gone", TOKEN)], id="the name of an agent that was removed"),
    pytest.param([basic("local", TOKEN)], id="the name local"),
    pytest.param([basic("anonymous", TOKEN)], id="the name anonymous"),
    pytest.param([f"Bearer {TOKEN}", f"Bearer {TOKEN}"], id="two headers, though equal"),
    pytest.param([f"Bearer {TOKEN}", ""], id="a second header without a value"),
    pytest.param([""], id="an empty header"),
    pytest.param([f"Digest {TOKEN}"], id="a scheme that is not ours"),
    pytest.param([TOKEN], id="no scheme"),
    pytest.param([basic("coder-1", TOKEN) + "!"], id="not base64"),
    pytest.param(["Basic " + b64encode(TOKEN.encode()).decode()], id="basic without a colon"),
    pytest.param(["Basic " + b64encode(b"\xff:" + TOKEN.encode()).decode()], id="basic that is not UTF-8"),
    pytest.param([f"Bearer {TOKEN}" + " " * 2000], id="a header without end"),
    pytest.param([f"Bearer {TOKEN},Bearer {OTHERS_TOKEN}"], id="two tokens in one header"),
])  # fmt: skip
@pytest.mark.parametrize("anonymous", [False, True])
def test_credentials_that_do_not_hold_are_refused_also_where_none_would_be_allowed(headers, anonymous):
    assert identify(KNOWN, Identity(anonymous=anonymous), Evidence(headers)) == (None, Code.IDENTITY_REFUSED)


@settings(max_examples=scaled(300))
@given(st.lists(st.one_of(st.text(), st.builds(basic, st.text(), st.text())), max_size=3), st.booleans())
def test_whatever_is_sent_gets_exactly_one_answer_and_never_a_registered_agent(headers, anonymous):
    agent, code = identify(KNOWN, Identity(anonymous=anonymous), Evidence(headers))

    assert (agent is None) != (code is None)
    assert agent in (None, ANONYMOUS)


# More than one way to be known

FLEET = SourceNetworks((
    (ip_network("10.0.0.0/8"), "fleet"), (ip_network("10.1.0.0/24"), "coder-1"), (ip_network("10.1.0.7/32"), "ci"),
    (ip_network("fd00::/64"), "reviewer"),
))
ALL_WAYS = Identity(
    frozenset({"proxy-auth", "cert", "source", "port", "sandbox"}), networks=FLEET, ports={8081: "coder-1", 8082: "ci"})
CODERS_PLACE, SOMEWHERE = ip_address("10.1.0.5"), ip_address("192.0.2.1")
BEARER = (f"Bearer {TOKEN}",)


def among(*sources: str) -> Identity:
    """A policy in which only these keys stand."""
    return Identity(frozenset(sources), networks=FLEET if "source" in sources else SourceNetworks(),
                    ports=ALL_WAYS.ports if "port" in sources else {})


@pytest.mark.parametrize(("evidence", "agent"), [
    pytest.param(Evidence(BEARER, "coder-1", 8081, CODERS_PLACE, "coder-1"), Agent("coder-1", "sandbox"), id="all"),
    pytest.param(Evidence(BEARER, "coder-1", 8081, CODERS_PLACE), Agent("coder-1", "cert"), id="no sandbox"),
    pytest.param(Evidence(BEARER, None, 8081, CODERS_PLACE), Agent("coder-1", "proxy-auth"), id="a token"),
    pytest.param(Evidence((), None, 8081, CODERS_PLACE), Agent("coder-1", "port"), id="a port"),
    pytest.param(Evidence((), None, 8080, CODERS_PLACE), Agent("coder-1", "source"), id="an address"),
    pytest.param(Evidence((), None, 8082, SOMEWHERE), Agent("ci", "port"), id="a port, from anywhere"),
    pytest.param(Evidence(source=ip_address("10.1.0.7")), Agent("ci", "source"), id="the narrowest network"),
    pytest.param(Evidence(source=ip_address("10.2.0.7")), Agent("fleet", "source"), id="the widest network"),
    pytest.param(Evidence(source=ip_address("fd00::9")), Agent("reviewer", "source"), id="an IPv6 network"),
    pytest.param(Evidence(certificate="fresh-1"), Agent("fresh-1", "cert"), id="a certificate needs no registration"),
    pytest.param(Evidence(sandbox="fresh-1"), Agent("fresh-1", "sandbox"), id="nor does a sandbox"),
    pytest.param(Evidence(sandbox="local"), Agent("local", "sandbox"), id="one without a name is the machine's own"),
])
def test_the_strongest_evidence_says_by_what_an_agent_is_known(evidence, agent):
    assert identify(KNOWN, ALL_WAYS, evidence) == (agent, None)


@pytest.mark.parametrize("evidence", [
    pytest.param(Evidence(BEARER, sandbox="reviewer"), id="a token beside another's sandbox"),
    pytest.param(Evidence(BEARER, "reviewer"), id="a token beside another's certificate"),
    pytest.param(Evidence(BEARER, None, 8082), id="a token at another's port"),
    pytest.param(Evidence(BEARER, source=ip_address("fd00::9")), id="a token from another's network"),
    pytest.param(Evidence((), "ci", 8081), id="a certificate at another's port"),
    pytest.param(Evidence((), None, 8082, CODERS_PLACE), id="a port from another's network"),
    pytest.param(Evidence(BEARER, "coder-1", 8081, ip_address("10.1.0.7"), "coder-1"), id="the weakest of five"),
])
def test_evidence_that_names_two_agents_refuses(evidence):
    assert identify(KNOWN, ALL_WAYS, evidence) == (None, Code.IDENTITY_CONFLICT)


@pytest.mark.parametrize("evidence", [
    pytest.param(Evidence((f"Bearer {REVOKED}",), "coder-1", 8081, CODERS_PLACE, "coder-1"), id="a revoked token"),
    pytest.param(Evidence((basic("ci", TOKEN),), None, 8081, CODERS_PLACE), id="a token under a port's name"),
    pytest.param(Evidence((), "", 8081, CODERS_PLACE), id="a certificate without a name"),
    pytest.param(Evidence((), "Coder-1", 8081, CODERS_PLACE), id="a certificate with a name that is no id"),
    pytest.param(Evidence((), "anonymous", 8081), id="a certificate for anonymous"),
    pytest.param(Evidence((), "local", 8081), id="a certificate for local"),
    pytest.param(Evidence(sandbox="no id"), id="a sandbox of nobody"),
    pytest.param(Evidence((), "gone"), id="a certificate of an agent that was removed"),
    pytest.param(Evidence(sandbox="gone"), id="a sandbox of an agent that was removed"),
])
def test_evidence_that_does_not_hold_refuses_whatever_else_there_is(evidence):
    tokens = replace(KNOWN, removed=frozenset({"gone"}))

    assert identify(tokens, replace(ALL_WAYS, anonymous=True), evidence) == (None, Code.IDENTITY_REFUSED)


@pytest.mark.parametrize(("sources", "evidence"), [
    pytest.param(["port"], Evidence(certificate="coder-1"), id="a certificate"),
    pytest.param(["cert"], Evidence(port=8081), id="a port"),
    pytest.param(["cert"], Evidence(source=CODERS_PLACE), id="an address"),
    pytest.param(["source"], Evidence(source=SOMEWHERE), id="an address in no network"),
    pytest.param(["port"], Evidence(port=8080), id="a port of nobody"),
    pytest.param(["sandbox"], Evidence(port=8081, source=CODERS_PLACE, certificate="coder-1"), id="all of it"),
])
def test_evidence_that_the_policy_does_not_name_names_nobody(sources, evidence):
    assert identify(Tokens(), among(*sources), evidence) == (None, Code.IDENTITY_REQUIRED)


@pytest.mark.parametrize("key", sorted(ALL_WAYS.sources))
def test_each_key_makes_identity_required(key):
    assert identify(Tokens(), among(key), Evidence()) == (None, Code.IDENTITY_REQUIRED)


def test_a_sandbox_counts_before_anything_else_makes_identity_known():
    assert identify(Tokens(), Identity(), Evidence(sandbox="coder-1")) == (Agent("coder-1", "sandbox"), None)
    assert identify(Tokens(), Identity(), Evidence(["Bearer x"], sandbox="coder-1"))[0] == Agent("coder-1", "sandbox")


def test_a_token_counts_where_the_policy_names_only_other_ways():
    assert identify(KNOWN, among("port"), Evidence(BEARER)) == (CODER, None)


NAMES = st.sampled_from(["coder-1", "reviewer", "ci", "fleet", "gone", "local", "anonymous", "", "No Id"])
EVIDENCE = st.builds(
    Evidence,
    credentials=st.lists(st.sampled_from([f"Bearer {TOKEN}", f"Bearer {OTHERS_TOKEN}", f"Bearer {REVOKED}", "x",
                                          basic("coder-1", TOKEN), basic("ci", TOKEN)]), max_size=2),
    certificate=st.none() | NAMES,
    port=st.none() | st.sampled_from([0, 8080, 8081, 8082]),
    source=st.none() | st.sampled_from([SOMEWHERE, CODERS_PLACE, ip_address("10.1.0.7"), ip_address("fd00::9")]),
    sandbox=st.none() | NAMES,
)
STRENGTH = ("sandbox", "cert", "proxy-auth", "port", "source")


def claims(policy: Identity, evidence: Evidence) -> dict[str, str | None]:
    """Whom each piece of evidence names where the policy wants it, said the long way; None where it is wrong."""
    held = {f"Bearer {TOKEN}": "coder-1", f"Bearer {OTHERS_TOKEN}": "reviewer", basic("coder-1", TOKEN): "coder-1"}
    if "ci" not in policy.agents:
        held[basic("ci", TOKEN)] = "coder-1"
    found: dict[str, str | None] = {}
    if evidence.sandbox is not None:
        found["sandbox"] = evidence.sandbox if valid_id(evidence.sandbox) or evidence.sandbox == "local" else None
    if "cert" in policy.sources and evidence.certificate is not None:
        found["cert"] = evidence.certificate if valid_id(evidence.certificate) else None
    if evidence.credentials:
        found["proxy-auth"] = held.get(evidence.credentials[0]) if len(evidence.credentials) == 1 else None
    if evidence.port in policy.ports:
        found["port"] = policy.ports[evidence.port]
    inside = [(block.prefixlen, agent) for block, agent in policy.networks.of
              if evidence.source is not None and evidence.source in block]
    if inside:
        found["source"] = max(inside)[1]
    return found


@settings(max_examples=scaled(600))
@given(st.sets(st.sampled_from(STRENGTH)), st.booleans(), EVIDENCE)
def test_nobody_is_an_agent_that_the_strongest_evidence_does_not_name_and_that_all_of_it_agrees_on(
    sources, anonymous, evidence
):
    policy, tokens = replace(among(*sources), anonymous=anonymous), replace(KNOWN, removed=frozenset({"gone"}))
    agent, code = identify(tokens, policy, evidence)

    said = claims(policy, evidence)
    assert (agent is None) != (code is None)
    if None in said.values() or "gone" in said.values():
        assert code is Code.IDENTITY_REFUSED
    elif not said:
        assert agent == ANONYMOUS if anonymous else code is Code.IDENTITY_REQUIRED
    elif len(set(said.values())) > 1:
        assert code is Code.IDENTITY_CONFLICT
    else:
        by = next(each for each in STRENGTH if each in said)
        assert agent == Agent(str(said[by]), by)


@pytest.mark.parametrize(("text", "address"), [
    ("10.1.0.7", "10.1.0.7"), ("::ffff:10.1.0.7", "10.1.0.7"), ("fe80::1%eth0", "fe80::1"), ("fd00::1", "fd00::1"),
])
def test_a_client_has_one_address_however_its_socket_writes_it(text, address):
    assert source_address(text) == ip_address(address)


@pytest.mark.parametrize("text", ["", "replay", "10.1.0", "/run/x.sock", "::g", "10.1.0.7%eth0"])
def test_what_is_no_address_is_none(text):
    assert source_address(text) is None


@pytest.mark.parametrize(("name", "valid"), [
    ("coder-1", True), ("7", True), ("a" * 64, True), ("team.a_b", True),
    ("a" * 65, False), ("", False), ("-a", False), (".a", False), ("Coder", False), ("a b", False), ("a\n", False),
    ("é", False), ("a/b", False), ("local", False), ("anonymous", False),
])  # fmt: skip
def test_an_agent_is_named_in_a_way_that_no_header_rule_or_label_misreads(name, valid):
    assert valid_id(name) is valid
