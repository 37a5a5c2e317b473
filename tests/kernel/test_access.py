"""Who can reach what, read from rules: no grant is left out that a request can use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.access import accesses
from kernel.match import Index
from kernel.normal import host
from kernel.question import answer, facts_of
from tests.addons.policies import compiled

GRANT = "allow: it, from: [a-*], to: x.com, methods: [GET, POST]"


def reached(rules: str, agent: str | None = "a-1", name: str | None = None):
    found = accesses(compiled(f"version: 1\n{rules}").policy, agent, name and host(name))
    return {each.rule.name: [refusal.name for refusal in each.but_not] for each in found}


@pytest.mark.parametrize(("refusal", "found"), [
    pytest.param("to: x.com", {}, id="all of it"),
    pytest.param("to: .x.com", {}, id="all of it and more"),
    pytest.param('to: "*.x.com"', {"it": []}, id="only what lies below"),
    pytest.param("to: x.com, methods: [GET, POST, PUT]", {}, id="more methods"),
    pytest.param("to: x.com, methods: [POST]", {"it": ["no"]}, id="one method"),
    pytest.param("to: x.com, methods: [PUT]", {"it": []}, id="another method"),
    pytest.param("to: x.com, schemes: http", {"it": []}, id="another scheme"),
    pytest.param("to: x.com, ports: 444-500", {"it": []}, id="other ports"),
    pytest.param('to: x.com, paths: ["/a/**"]', {"it": ["no"]}, id="a path"),
    pytest.param("to: x.com, from: b", {"it": []}, id="another agent"),
    pytest.param("to: x.com, except: {methods: GET}", {"it": ["no"]}, id="an exception"),
    pytest.param("to: 10.0.0.0/8", {"it": []}, id="inside addresses, which a name is not followed to"),
    pytest.param("to: 9.0.0.0/8", {"it": ["no"]}, id="addresses that the name may have"),
    pytest.param("address: 9.0.0.0/8", {"it": ["no"]}, id="the same said with address"),
    pytest.param('to: "https://x.com/a"', {"it": ["no"]}, id="a URL"),
    pytest.param("methods: [GET, POST]", {}, id="everywhere"),
    pytest.param("json: {a: b}", {"it": ["no"]}, id="a field of the body"),
])  # fmt: skip
def test_a_refusal_removes_what_it_covers_and_is_named_where_it_touches(refusal, found):
    assert reached(f"rules: [{{{GRANT}}}, {{deny: no, {refusal}}}]") == found


def test_an_inside_service_is_touched_by_what_refuses_its_range():
    grant = "allow: it, to: x.com, methods: any, address: 10.1.0.0/16"

    assert reached(f"rules: [{{{grant}}}]\nnever: [{{to: 10.1.2.0/24}}, {{to: 10.2.0.0/16}}]") == {"it": ["never-1"]}


@pytest.mark.parametrize(("agent", "found"), [("a-1", {"it": []}), ("b", {}), ("anonymous", {}), (None, {"it": []})])
def test_only_agents_that_a_rule_names_reach_what_it_allows(agent, found):
    assert reached(f"rules: [{{{GRANT}}}]", agent) == found


def test_anonymous_reaches_only_what_names_it():
    rules = "rules: [{allow: all, to: x.com, methods: any}, {allow: it, from: anonymous, to: y.com, methods: any}]"

    assert reached(f"identity: {{anonymous: allow}}\n{rules}", "anonymous") == {"it": []}


@pytest.mark.parametrize(("name", "found"), [("x.com", {"it": []}), ("www.x.com", {}), ("10.1.2.3", {})])
def test_a_host_is_reached_by_the_rules_that_lead_there(name, found):
    assert reached(f"rules: [{{{GRANT}}}]", None, name) == found


def test_a_name_may_lead_to_any_address_that_is_refused():
    assert reached(f"rules: [{{{GRANT}}}, {{deny: no, to: 9.0.0.0/8}}]", None, "x.com") == {"it": ["no"]}


def test_only_the_destinations_that_lead_to_the_host_are_shown():
    found = accesses(compiled("version: 1\nrules: [{allow: it, to: [x.com, .x.com, y.com], methods: any}]").policy,
                     None, host("x.com"))

    assert [len(each.where.to or ()) for each in found] == [2]


HOSTS = ["x.com", ".x.com", '"*.x.com"', "w.x.com", "9.0.0.0/8", "10.0.0.0/8", '"https://w.x.com/a/**"']
KEYS = st.fixed_dictionaries({}, optional={
    "to": st.sampled_from(HOSTS), "methods": st.sampled_from(["[GET]", "[POST]", "any"]),
    "from": st.sampled_from(["a-1", "a-*", "b"]), "address": st.sampled_from(["9.0.0.0/8", "10.0.0.0/8"]),
    "except": st.sampled_from(["{methods: GET}", "{to: w.x.com}"]),
})


@given(st.lists(st.tuples(st.sampled_from(["allow", "deny"]), KEYS), min_size=1, max_size=5),
       st.sampled_from(["a-1", "b"]), st.sampled_from(["GET", "POST"]),
       st.sampled_from(["https://x.com/", "https://w.x.com/a/b", "https://9.9.9.9/", "https://10.1.1.1/"]))
def test_whatever_passes_is_in_the_table(rules, agent, method, url):
    items = []
    for number, (verb, keys) in enumerate(rules):
        said = {"methods": "any", **keys} if verb == "allow" else keys
        items.append(f"{{{verb}: r{number}, {', '.join(f'{key}: {value}' for key, value in said.items())}}}")
    policy = compiled(f"version: 1\nrules: [{', '.join(items)}]").policy
    facts = facts_of(agent, method, url)
    verdict = answer(Index(policy), facts).verdict

    if verdict.lets_through:
        assert verdict.rule in {each.rule.name for each in accesses(policy, agent, facts.host)}
        assert verdict.rule in {each.rule.name for each in accesses(policy, agent)}
        assert verdict.rule in {each.rule.name for each in accesses(policy, None, facts.host)}
