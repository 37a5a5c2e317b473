"""What a policy answers outside the hours of its rules."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kernel.decide import name_stage
from kernel.explanation import near_misses, would_allow
from kernel.match import Index
from kernel.normal import host
from kernel.question import STAND_IN, answer, facts_of
from kernel.verdict import Code
from tests.addons.policies import codes, compiled
from tests.kernel.test_hours import at

WORK = 'when: {days: mon-fri, hours: "08:00-18:00", timezone: Europe/Berlin}'
ALLOW = f"{{allow: work, to: x.example, methods: any, tell: come back, {WORK}}}"
FRIDAY, EVENING = "2026-01-09T12:00:00+01:00", "2026-01-09T20:00:00+01:00"


def judged(rules: str, time: str, address: str | None = None, url: str = "https://x.example/"):
    index = Index(compiled(f"rules: [{rules}]").policy)
    facts = facts_of("local", "GET", url, at=at(time))
    return answer(index, facts, None if address is None else ip_address(address))


def test_outside_its_hours_a_grant_says_when_they_begin_again():
    assert judged(ALLOW, FRIDAY).verdict.code is Code.ALLOW
    refused = judged(ALLOW, EVENING).verdict

    assert (refused.code, refused.rule, refused.tell) == (Code.OUT_OF_HOURS, "work", "come back")
    assert refused.reason == "it is outside the hours of rule work; they begin again at 2026-01-12T07:00:00Z"
    assert not refused.lets_through


@pytest.mark.parametrize(("rules", "code"), [
    pytest.param("{allow: y, to: x.example, methods: any, expires: 2026-01-08}", Code.DEFAULT_DENY, id="an end"),
    pytest.param(ALLOW.replace("tell: come back", "expires: 2026-01-10"), Code.DEFAULT_DENY, id="hours and an end"),
    pytest.param(ALLOW.replace("x.example", "y.example"), Code.DEFAULT_DENY, id="another host"),
    pytest.param(ALLOW.replace("methods: any", "methods: [POST]"), Code.DEFAULT_DENY, id="another method"),
    pytest.param(f"{ALLOW}, {{deny: no, to: x.example}}", Code.RULE_DENY, id="a refusal beside it"),
    pytest.param(f"{ALLOW}, {{allow: always, to: x.example, methods: any}}", Code.ALLOW, id="another grant"),
])
def test_only_hours_that_are_the_only_reason_are_told(rules, code):
    assert judged(rules, EVENING).verdict.code is code


def test_an_inside_address_is_out_of_hours_only_where_the_grant_was_written_for_it():
    inside = ALLOW.replace("methods: any", "methods: any, address: 10.0.0.0/8")

    assert judged(inside, EVENING, "10.1.2.3").verdict.code is Code.OUT_OF_HOURS
    assert judged(ALLOW, EVENING, "10.1.2.3").verdict.code is Code.OUT_OF_HOURS  # told by the name, before any address
    wide = f"{ALLOW}, {{allow: in, to: x.example, methods: any, address: 10.9.0.0/16}}"
    assert judged(wide, EVENING, "10.1.2.3").verdict.code is Code.PRIVATE_ADDRESS


def test_a_name_is_not_looked_up_outside_hours():
    index = Index(compiled(f"rules: [{ALLOW}]").policy)

    assert name_stage(index, facts_of("local", "GET", "https://x.example/", at=at(EVENING))).verdict.rule == "work"
    assert name_stage(index, facts_of("local", "GET", "https://x.example/", at=at(FRIDAY))) is None


def test_a_tunnel_opens_for_a_grant_whose_hours_may_come_while_it_is_open():
    index = Index(compiled(f"rules: [{ALLOW}, {{deny: no, to: y.example, {WORK}}}]").policy)

    assert index.connect_reaches("local", host("x.example"), 443)


def test_one_request_is_judged_at_its_own_time_whoever_asks_between_its_stages():
    index = Index(compiled(f"rules: [{ALLOW.replace('to: x.example', 'to: 192.0.32.0/24')}]").policy)
    early = facts_of("local", "GET", "https://192.0.32.8/", at=at(FRIDAY))
    index.by_name(early)
    answer(index, facts_of("local", "GET", "https://x.example/", at=at(EVENING)))

    assert answer(index, early).verdict.code is Code.ALLOW


def test_a_refusal_stays_one_however_often_it_is_asked_for():
    index = Index(compiled(f"rules: [{ALLOW}]").policy)
    asked = [answer(index, facts_of("local", "GET", "https://x.example/", at=at(EVENING))) for _ in range(3)]

    assert [each.verdict.code for each in asked] == [Code.OUT_OF_HOURS] * 3


@pytest.mark.parametrize("assertion", [
    'allowed: {from: local, to: "https://x.example/", method: GET}',
    'denied: {from: local, to: "https://y.example/", method: GET}',
])
def test_whether_a_policy_loads_hangs_on_no_time(assertion):
    for end in ("2026-12-31", "1970-01-01"):
        rules = f"[{ALLOW.replace('tell: come back', f'expires: {end}')}]"
        assert "P801" not in codes(f"rules: {rules}\nassert: [{assertion}]\n")


def test_an_assertion_that_something_is_denied_holds_at_every_time():
    rules = f"[{ALLOW}, {{deny: no, to: x.example, expires: 2099-01-01}}]"

    assert codes(f'rules: {rules}\nassert: [denied: {{from: local, to: "https://x.example/", method: GET}}]\n') == [
        "P801"]


def test_an_explanation_tells_the_hours():
    policy = compiled(f"rules: [{ALLOW}]").policy
    facts = facts_of("local", "GET", "https://x.example/", at=at(EVENING))
    misses = near_misses(policy, facts, STAND_IN)
    told = would_allow(policy, facts, answer(Index(policy), facts), misses)

    assert misses[0].reasons == (
        "the time is 2026-01-09T19:00:00Z and it wants mon,tue,wed,thu,fri 08:00-18:00 Europe/Berlin",)
    assert "they begin again at 2026-01-12T07:00:00Z" in told[0]
