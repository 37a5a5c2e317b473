"""The judgement of a request in mode observe, and denies on trial."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kernel.access import accesses
from kernel.decide import address_stage, from_groups
from kernel.explanation import would_allow
from kernel.match import Index
from kernel.measures import DEFAULT
from kernel.question import facts_of
from kernel.trial import OBSERVED, Mode, enforced, mode_at, observing
from kernel.verdict import Code
from tests.addons.policies import codes, compiled
from tests.kernel.test_hours import at

GLOBAL, INSIDE, METADATA = (ip_address(each) for each in ("93.184.216.34", "10.1.2.3", "169.254.169.254"))
IN = "{allow: in, to: x.example, methods: any, address: 10.0.0.0/8, max-request: 5, max-response: 5, max-url: 99}"
DENY = "{deny: no, to: x.example}"
TRIED = "{deny: no, to: x.example, observe: yes, expires: 2099-12-31}"
UNTIL = 4_000_000_000


def judged(rules, *addresses, scheme="https", body_bytes=0, rest=""):
    index = Index(compiled(f"rules: [{rules}]\n{rest}").policy)
    facts = facts_of("local", "GET", f"{scheme}://x.example/", body_bytes=body_bytes)
    said = address_stage(index, facts, addresses, frozenset())
    return enforced(index, facts, addresses, said, UNTIL)


@pytest.mark.parametrize(("rules", "addresses", "scheme", "code"), [
    pytest.param("", [GLOBAL], "https", Code.DEFAULT_DENY, id="nothing allows it"),
    pytest.param(DENY, [GLOBAL], "https", Code.RULE_DENY, id="a deny"),
    pytest.param("{halt: h, to: x.example}", [GLOBAL], "https", Code.RULE_HALT, id="a halt"),
    pytest.param(f"{IN}, {DENY}", [INSIDE], "https", Code.RULE_DENY, id="a deny at an address that was opened"),
    pytest.param(DENY, [INSIDE], "https", Code.PRIVATE_ADDRESS, id="a deny hides no inside address"),
    pytest.param(DENY, [GLOBAL, METADATA], "https", Code.PRIVATE_ADDRESS, id="at none of its addresses"),
    pytest.param(f"{IN}, {DENY}", [INSIDE, METADATA], "https", Code.PRIVATE_ADDRESS, id="another inside address"),
    pytest.param(DENY, [GLOBAL], "wss", Code.UPGRADE_REFUSED, id="a deny hides no upgrade that nothing allows"),
    pytest.param(f"{{allow: ws, to: x.example, methods: any, websocket: {{}}}}, {DENY}", [GLOBAL], "wss",
                 Code.RULE_DENY, id="a deny of an upgrade that a rule allows"),
])  # fmt: skip
def test_a_request_passes_in_spite_of_rules_and_of_nothing_else(rules, addresses, scheme, code):
    said = judged(rules, *addresses, scheme=scheme)

    assert said.verdict.code is code
    assert not said.verdict.lets_through
    assert (code in OBSERVED) is (code in (Code.DEFAULT_DENY, Code.RULE_DENY))


def test_a_never_is_stricter_than_every_deny():
    said = judged(DENY, GLOBAL, rest="never: [{to: x.example}]")

    assert said.verdict.code is Code.NEVER
    assert said.verdict.code not in OBSERVED


def test_hours_that_are_over_hide_no_inside_address():
    night = IN.replace("max-request: 5", 'when: {hours: "00:00-00:01", timezone: UTC}')
    index = Index(compiled(f"rules: [{night}]").policy)
    facts = facts_of("local", "GET", "https://x.example/", at=at("2026-01-09T12:00:00Z"))
    said = address_stage(index, facts, [INSIDE], frozenset())

    assert said.verdict.code is Code.OUT_OF_HOURS
    assert enforced(index, facts, [INSIDE], said, UNTIL).verdict.code is Code.PRIVATE_ADDRESS


@pytest.mark.parametrize("body_bytes", [0, 6])
def test_what_passes_has_no_size_that_a_rule_says_and_is_asked_for_again(body_bytes):
    said = judged(IN, INSIDE, body_bytes=body_bytes)

    assert said.verdict.code is (Code.BODY_TOO_LARGE if body_bytes else Code.ALLOW)
    assert (said.measures, said.until) == (DEFAULT, UNTIL)


def test_only_what_a_policy_itself_refuses_is_observed():
    rules = {Code.RULE_DENY, Code.DEFAULT_DENY, Code.OUT_OF_HOURS, Code.URL_TOO_LONG, Code.BODY_TOO_LARGE}
    counts = {Code.BUDGET_EXHAUSTED, Code.RATE_LIMITED, Code.EXHAUSTION, Code.OVERRISK, Code.EXPLORATION_DRIFT,
              Code.PERSISTENCE_LIMIT, Code.STAGNATION, Code.EXTERNAL}

    assert rules | counts == OBSERVED


def test_a_trial_is_over_at_its_end():
    assert [mode_at(5, 4), mode_at(5, 5), mode_at(None, 0)] == [Mode.OBSERVE, Mode.ENFORCE, Mode.ENFORCE]


def test_a_deny_on_trial_refuses_nothing_and_is_named():
    policy = compiled(f"rules: [{{allow: all, to: x.example, methods: any}}, {TRIED}]").policy
    index, facts = Index(policy), facts_of("local", "GET", "https://x.example/")
    said = address_stage(index, facts, [GLOBAL], frozenset())

    assert (said.verdict.code, said.groups) == (Code.ALLOW, ("all", "no"))
    assert from_groups({rule.name: rule for rule in policy.rules}, said.groups, GLOBAL, False, tiers=policy.tiers,
                       agent="local", scheme="https", body_bytes=0, url_bytes=0) == said.verdict
    assert observing("rule all", said.groups, index.observed) == "rule all; observed: no"
    assert observing("rule all", ("all",), index.observed) == "rule all"
    (access,) = accesses(policy)
    assert (access.rule.name, access.but_not) == ("all", ())


def test_a_deny_on_trial_is_no_reason_for_a_refusal():
    policy = compiled(f"rules: [{TRIED}]").policy
    facts = facts_of("local", "GET", "https://x.example/")
    said = address_stage(Index(policy), facts, [GLOBAL], frozenset())

    assert said.verdict.code is Code.DEFAULT_DENY
    assert not any("rule no" in sentence for sentence in would_allow(policy, facts, said, []))


def test_a_deny_on_trial_has_no_effect_after_its_end():
    index = Index(compiled(f"rules: [{{allow: all, to: x.example, methods: any}}, {TRIED}]").policy)
    facts = facts_of("local", "GET", "https://x.example/", at=at("2100-01-01T00:00:00Z"))

    assert address_stage(index, facts, [GLOBAL], frozenset()).groups == ("all",)


@pytest.mark.parametrize(("text", "code"), [
    ("mode: observe\nuntil: 2099-12-31\n", "W307"), ("mode: observe\nuntil: 2099-12-31T10:00:00+02:00\n", "W307"),
])
def test_a_policy_on_trial_says_so(text, code):
    assert codes(text) == [code]


def test_a_policy_says_until_when_it_is_tried():
    assert compiled("mode: observe\nuntil: 2098-12-31\n").policy.observed_until == at("2099-01-01T00:00:00Z")
    assert compiled("mode: enforce\n").policy.observed_until is None
