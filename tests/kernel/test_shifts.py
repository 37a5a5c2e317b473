"""A difference between two policies counts what becomes of those who ask: what is used up, slowed down or ended."""

from __future__ import annotations

import pytest

from kernel.analysis.difference import Relation, difference
from tests.addons.policies import compiled
from tests.kernel.test_several import together

RULES = "rules: [{allow: a, to: .example, methods: any}, {deny: d, to: d.example}]\n"
EQUAL, LOOSER, STRICTER = Relation.EQUAL, Relation.LOOSER, Relation.STRICTER
INCOMPARABLE = Relation.INCOMPARABLE


def compared(old: str, new: str):
    return difference(compiled(f"agents: {{c: [c-*]}}\n{old}").policy, compiled(f"agents: {{c: [c-*]}}\n{new}").policy)


def budget(keys: str, name: str = "b") -> str:
    return f"{RULES}budgets: [{{budget: {name}, {keys}}}]"


DAILY = budget("each: {requests: 100}, every: day")


@pytest.mark.parametrize(("old", "new", "relation"), [
    pytest.param(DAILY, DAILY, EQUAL, id="the same"),
    pytest.param(DAILY, budget("each: {requests: 100}, every: day", "other"), EQUAL, id="another name"),
    pytest.param(DAILY, budget("each: {requests: 99}, every: day"), STRICTER, id="a smaller one"),
    pytest.param(RULES, DAILY, STRICTER, id="a new one"),
    pytest.param(DAILY, budget("for: c, each: {requests: 100}, every: day"), LOOSER, id="for fewer agents"),
    pytest.param(DAILY, budget("for: ['*'], each: {requests: 100}, every: day"), LOOSER, id="not for anonymous"),
    pytest.param(budget("for: c-1, each: {requests: 9}, every: day"), budget("for: c, each: {requests: 9}, every: day"),
                 STRICTER, id="for a group instead of one of it"),
    pytest.param(DAILY, budget("together: {requests: 100}, every: day"), STRICTER, id="together what each had"),
    pytest.param(DAILY, budget("together: {requests: 101}, every: day"), INCOMPARABLE, id="together more than each"),
    pytest.param(DAILY, budget("each: {requests: 100}, every: week"), INCOMPARABLE, id="another window"),
    pytest.param(DAILY, budget("each: {requests: 100}, every: day, timezone: Asia/Tokyo"), INCOMPARABLE, id="a zone"),
    pytest.param(DAILY, budget("each: {bytes: 100}, every: day"), INCOMPARABLE, id="another unit"),
    pytest.param(DAILY, budget("each: {requests: 100}, every: day, when-used: {90%: deny}"), STRICTER,
                 id="ends before"),
    pytest.param(DAILY, budget("each: {requests: 100}, every: day, when-used: {100%: halt}"), STRICTER, id="halts"),
    pytest.param(DAILY, budget("each: {requests: 100}, every: day, when-used: {80%: throttle 6/minute}"), STRICTER,
                 id="slows down before"),
    pytest.param(budget("each: {requests: 100}, every: day, when-used: {80%: throttle 6/minute}"),
                 budget("each: {requests: 100}, every: day, when-used: {80%: throttle 7/minute}"), LOOSER,
                 id="slows down less"),
    pytest.param(budget("each: {requests: 100}, every: day, when-used: {80%: throttle 6/minute}"),
                 budget("each: {requests: 80}, every: day"), STRICTER, id="ends where it slowed down"),
    pytest.param(DAILY, budget("each: {requests: 100}, every: day, when-used: {80%: tell}"), EQUAL, id="tells"),
    pytest.param(RULES, f"{RULES}rates: [{{each: 60/minute}}]", STRICTER, id="a new rate"),
    pytest.param(f"{RULES}rates: [{{each: 60/minute}}]", f"{RULES}rates: [{{each: 1/second}}]", EQUAL, id="as fast"),
    pytest.param(f"{RULES}rates: [{{each: 60/minute}}]", f"{RULES}rates: [{{each: 61/minute}}]", LOOSER, id="faster"),
    pytest.param(f"{RULES}rates: [{{each: 60/minute}}]", f"{RULES}rates: [{{each: 60/minute, burst: 2}}]", LOOSER,
                 id="a larger burst"),
    pytest.param(RULES, f"{RULES}profile: balanced", STRICTER, id="a profile"),
    pytest.param(f"{RULES}profile: balanced", f"{RULES}profile: conservative", STRICTER, id="a stricter profile"),
    pytest.param(f"{RULES}profile: balanced", f"{RULES}profile: aggressive", LOOSER, id="a looser profile"),
    pytest.param(f"{RULES}profile: balanced",
                 f"{RULES}profile: balanced\ncounters: {{steps: {{limit: 5, then: tell}}}}", LOOSER, id="only told"),
    pytest.param(f"{RULES}counters: {{persistence: {{limit: 5, then: deny, within: 1h}}}}",
                 f"{RULES}counters: {{persistence: {{limit: 5, then: deny, within: 10m}}}}", LOOSER, id="a while"),
])
def test_what_bounds_agents_is_compared_bound_by_bound(old, new, relation):
    opposite = {STRICTER: LOOSER, LOOSER: STRICTER}.get(relation, relation)

    assert compared(old, new).relation is relation
    assert compared(new, old).relation is opposite


def rules(*texts: str) -> str:
    return f"rules: [{', '.join(f'{{{text}}}' for text in texts)}]"


ALLOW = "allow: a, to: .example, methods: any, ports: 1-65535, schemes: [http, https]"
CRAWL = "throttle: t, to: .example"


@pytest.mark.parametrize(("old", "new", "relation"), [
    pytest.param(rules(ALLOW), rules(ALLOW, f"{CRAWL}, rate: 6/minute"), STRICTER, id="a throttle beside an allow"),
    pytest.param(rules(ALLOW, f"{CRAWL}, rate: 6/minute"), rules(ALLOW, f"{CRAWL}, rate: 60/minute"), LOOSER,
                 id="a faster throttle"),
    pytest.param(rules(f"{CRAWL}, rate: 6/minute"), rules("throttle: x, to: x.example, rate: 6/minute",
                                                          f"{CRAWL}, rate: 6/minute, except: {{to: x.example}}"),
                 LOOSER, id="two that are counted apart"),
    pytest.param(rules(ALLOW, "throttle: t, to: x.example, rate: 6/minute"),
                 rules(ALLOW, f"{CRAWL}, rate: 6/minute"), STRICTER, id="a throttle of more"),
    pytest.param(rules("deny: d, to: x.example"), rules("halt: d, to: x.example"), STRICTER, id="a halt for a deny"),
    pytest.param(rules("halt: h, to: [x.example, y.example]"), rules("halt: h, to: [x.example]"), LOOSER,
                 id="half a halt"),
    pytest.param(rules("halt: h, to: x.example"), rules("halt: h, to: x.example") + "\nnever: [{to: x.example}]",
                 LOOSER, id="a never that hides it"),
    pytest.param(rules("halt: h, to: 8.8.8.8"), rules("halt: h, to: 8.8.8.8", "deny: d, to: 8.8.8.8"), EQUAL,
                 id="a deny beside a halt for addresses"),
    pytest.param(rules("halt: h, to: 8.8.8.8"), rules("halt: h, to: 8.8.8.8") + "\nnever: [{to: x.example}]", EQUAL,
                 id="a halt for addresses ended nobody for a name"),
    pytest.param(rules("halt: h, to: 8.8.8.8"), rules("deny: d, to: 8.8.8.8"), LOOSER, id="a halt for an address"),
    pytest.param(rules(ALLOW, "deny: d, to: x.example, risk: 5"), rules(ALLOW, "deny: d, to: x.example"), LOOSER,
                 id="no points"),
    pytest.param(rules(ALLOW, "deny: d, to: x.example, risk: 5"),
                 rules(ALLOW, "deny: d, to: x.example, risk: 3", "deny: e, to: [x.example, y.test], risk: 2"), STRICTER,
                 id="points that add up, and more of them"),
    pytest.param(rules(ALLOW, "deny: d, to: [x.example, y.example], risk: 5"),
                 rules(ALLOW, "deny: d, to: x.example, risk: 5", "deny: e, to: y.example, risk: 5"), EQUAL,
                 id="points of two rules instead of one"),
    pytest.param(rules(ALLOW, "deny: d, to: x.example, risk: 5", "deny: e, to: y.example, risk: 5"),
                 rules(ALLOW, "deny: d, to: x.example, risk: 9", "deny: e, to: y.example, risk: 1"), INCOMPARABLE,
                 id="more here and fewer there"),
])
def test_what_becomes_of_a_request_is_compared_for_every_request(old, new, relation):
    opposite = {STRICTER: LOOSER, LOOSER: STRICTER}.get(relation, relation)

    assert compared(old, new).relation is relation
    assert compared(new, old).relation is opposite


def test_a_change_of_a_bound_is_told_with_its_name_and_in_words():
    found = compared(DAILY, budget("for: c, each: {requests: 2k}, every: day, when-used: {80%: tell, 100%: halt}"))

    assert [(change.rules, change.message, change.witness) for change in found.changed] == [
        (("b",), "b no longer refuses after 100 requests of every agent in a day (UTC)", None),
        (("b",), "b now halts after 2,000 requests of each of c in a day (UTC)", None),
        (("b",), "b now tells what is left at 80 %", None)]


def test_a_change_of_a_throttle_has_a_request_that_shows_it():
    (change,) = compared(rules(ALLOW), rules(ALLOW, f"{CRAWL}, rate: 6/minute")).changed

    assert (change.rules, change.message) == (("t",), "t now slows down to 6 a minute what passes (rule t, p.yaml:3)")
    assert change.witness is not None
    assert change.witness.url.startswith("http")


def test_a_budget_in_a_file_for_some_agents_is_compared_for_those():
    platform = "tier: platform\n" + RULES
    team = "tier: team\nfor: c-*\n" + RULES.replace("allow: a", "allow: b").replace("deny: d", "deny: e")
    limited = team + "budgets: [{budget: own, each: {requests: 5}, every: day}]"

    found = difference(together(platform, limited).policy, together(platform, team).policy)

    assert found.relation is LOOSER
    assert found.changed[0].message == "own no longer refuses after 5 requests of each of c-* in a day (UTC)"
