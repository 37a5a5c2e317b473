"""Who sent a flow: the table of DESIGN's section on identity, and that nothing an agent sends breaks it."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.facts import Agent
from kernel.identity import ANONYMOUS, LOCAL, Tokens, digest, identify, valid_id
from kernel.policy import Identity
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
    assert identify(Tokens(), Identity(anonymous=anonymous), headers) == (LOCAL, None)


def test_a_source_in_the_policy_makes_identity_required():
    assert identify(Tokens(), Identity(frozenset({"proxy-auth"})), []) == (None, Code.IDENTITY_REQUIRED)


def test_anonymous_as_the_only_source_makes_none_known():
    assert identify(Tokens(), Identity(frozenset({"anonymous"}), anonymous=True), []) == (LOCAL, None)


def test_a_flow_without_a_token_is_refused_once_one_is_known():
    assert identify(KNOWN, Identity(), []) == (None, Code.IDENTITY_REQUIRED)


def test_revoked_tokens_alone_keep_identity_required():
    assert identify(Tokens({}, frozenset({"gone"}), known=True), Identity(), []) == (None, Code.IDENTITY_REQUIRED)


def test_a_flow_without_a_token_is_anonymous_where_the_policy_allows_it():
    assert identify(KNOWN, Identity(anonymous=True), []) == (ANONYMOUS, None)


@pytest.mark.parametrize("header", [
    pytest.param(f"Bearer {TOKEN}", id="bearer"),
    pytest.param(f"bEARER  {TOKEN} ", id="the scheme in any case, spaces around"),
    pytest.param(basic("coder-1", TOKEN), id="basic with its own name"),
    pytest.param(basic("", TOKEN), id="basic without a user"),
    pytest.param(basic("whoever", TOKEN), id="basic with a name that nobody has"),
])  # fmt: skip
def test_a_token_that_holds_names_its_agent(header):
    assert identify(KNOWN, Identity(), [header]) == (CODER, None)


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
    assert identify(KNOWN, Identity(anonymous=anonymous), headers) == (None, Code.IDENTITY_REFUSED)


@settings(max_examples=scaled(300))
@given(st.lists(st.one_of(st.text(), st.builds(basic, st.text(), st.text())), max_size=3), st.booleans())
def test_whatever_is_sent_gets_exactly_one_answer_and_never_a_registered_agent(headers, anonymous):
    agent, code = identify(KNOWN, Identity(anonymous=anonymous), headers)

    assert (agent is None) != (code is None)
    assert agent in (None, ANONYMOUS)


@pytest.mark.parametrize(("name", "valid"), [
    ("coder-1", True), ("7", True), ("a" * 64, True), ("team.a_b", True),
    ("a" * 65, False), ("", False), ("-a", False), (".a", False), ("Coder", False), ("a b", False), ("a\n", False),
    ("é", False), ("a/b", False), ("local", False), ("anonymous", False),
])  # fmt: skip
def test_an_agent_is_named_in_a_way_that_no_header_rule_or_label_misreads(name, valid):
    assert valid_id(name) is valid
