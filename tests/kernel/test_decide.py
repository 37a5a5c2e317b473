"""Which verdict wins, at one address and over several, and what the two stages answer for."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from kernel.address import named_ranges
from kernel.comparison import UNREAD, UNREADABLE, Comparison, Field
from kernel.decide import address_stage, expected, from_groups, name_stage
from kernel.facts import Agent, RequestFacts
from kernel.fields import Fields
from kernel.match import Index
from kernel.measures import Cap, Terms, WebSocketMeasures
from kernel.normal import host, path
from kernel.pattern import address_range, agent_pattern, destination, path_glob
from kernel.policy import Conditions, Policy, PortRange, Position, Rule, Tier, Verb
from kernel.verdict import Action, Code

NAMED = named_ranges(["169.254.169.254", "fd00:ec2::254"])
PUBLIC, OTHER, INSIDE = ip_address("8.8.8.8"), ip_address("9.9.9.9"), ip_address("10.1.2.3")
METADATA = ip_address("169.254.169.254")
NOBODY: frozenset = frozenset()


def rule(
    verb, name, *, to=None, address=None, paths=None, agents=None, methods=None, json=None, holes=(), tell=None, **terms
):
    where = conditions(to=to, address=address, paths=paths, agents=agents, methods=methods, json=json)
    return Rule(0, name, Verb(verb), where, tuple(holes), Position("p.yaml", 1, 1), tell=tell, terms=Terms(**terms))


def conditions(*, to=None, address=None, paths=None, agents=None, methods=None, json=None):
    def each(parse, texts):
        return None if texts is None else tuple(parse(text) for text in texts)

    return Conditions(
        agents=each(agent_pattern, agents),
        to=each(lambda text: destination(text, NAMED), to),
        address=each(lambda text: address_range(text, NAMED), address),
        methods=None if methods is None else frozenset(methods),
        paths=each(path_glob, paths),
        json=None if json is None else tuple(Field(name, Comparison((text,))) for name, text in json.items()),
    )


def index(*rules):
    numbered = [replace(each, number=number) for number, each in enumerate(rules)]
    plain, nevers, limits = (
        tuple(each for each in numbered if each.verb in verbs)
        for verbs in ((Verb.ALLOW, Verb.THROTTLE, Verb.DENY, Verb.HALT), (Verb.NEVER,), (Verb.LIMIT,)))
    return Index(Policy("", (), plain, nevers, limits=limits))


def get(url, agent="claude-1", method="GET", body_bytes=0):
    scheme, _, rest = url.partition("://")
    name, slash, raw = rest.partition("/")
    where, _, query = (slash + raw).partition("?")
    return RequestFacts(Agent(agent, "proxy-auth"), method, scheme, host(name), 443, path(where), query, body_bytes)


def judge(policy, url, *addresses, agent="claude-1", own=NOBODY):
    facts = get(url, agent)
    found = address_stage(policy, facts, addresses or (facts.host.address,), own)
    return found.verdict.code, found.verdict.rule, found.groups, found.address


PLAIN = {"tiers": (Tier(),), "agent": "local", "scheme": "https", "body_bytes": 0, "url_bytes": 20}


def test_without_a_rule_nothing_is_allowed():
    assert judge(index(), "https://x.example/", PUBLIC) == (Code.DEFAULT_DENY, None, (), PUBLIC)


def test_a_deny_wins_over_an_allow_whatever_the_order():
    policy = index(rule("allow", "all", to=[".example"]), rule("deny", "no-x", to=["x.example"]))

    assert judge(policy, "https://x.example/", PUBLIC) == (Code.RULE_DENY, "no-x", ("all", "no-x"), PUBLIC)
    assert judge(policy, "https://y.example/", PUBLIC) == (Code.ALLOW, "all", ("all",), PUBLIC)


def test_a_never_wins_over_a_deny_and_the_first_of_equals_is_named():
    policy = index(rule("deny", "d1"), rule("deny", "d2"), rule("never", "n1", to=["x.example"]), rule("never", "n2"))

    assert judge(policy, "https://x.example/", PUBLIC)[:2] == (Code.NEVER, "n1")
    assert judge(index(rule("deny", "d1"), rule("deny", "d2")), "https://x.example/", PUBLIC)[:2] == (
        Code.RULE_DENY,
        "d1",
    )


def test_a_halt_wins_over_a_deny_and_a_never_over_a_halt():
    policy = index(rule("deny", "d"), rule("halt", "h", to=[".example"]), rule("never", "n", to=["n.example"]))

    assert judge(policy, "https://x.example/", PUBLIC)[:2] == (Code.RULE_HALT, "h")
    assert judge(policy, "https://n.example/", PUBLIC)[:2] == (Code.NEVER, "n")
    assert name_stage(policy, get("https://x.example/")).verdict.action is Action.HALT


def test_where_a_name_leads_ends_no_agent():
    policy = index(rule("allow", "all"), rule("halt", "h", to=["9.9.9.9", "metadata"], tell="no"))

    literal, named = (address_stage(policy, get(url), [OTHER], NOBODY).verdict
                      for url in ("https://9.9.9.9/", "https://x.example/"))

    assert (literal.action, literal.code) == (Action.HALT, Code.RULE_HALT)
    assert (named.action, named.code, named.rule, named.tell) == (Action.DENY, Code.RULE_DENY, "h", "no")
    for verdict, of_literal in ((literal, True), (named, False)):
        rules = {each.name: each for each in policy.rules}
        assert from_groups(rules, ["all", "h"], OTHER, of_literal, **PLAIN) == verdict


def test_a_throttle_decides_beside_an_allow_and_its_request_stays_within_the_measures_of_every_address():
    policy = index(rule("allow", "all", max_response=10), rule("throttle", "slow", address=["9.9.9.9"]))

    found = address_stage(policy, get("https://x.example/"), [PUBLIC, OTHER], NOBODY)

    assert (found.verdict.action, found.verdict.code, found.verdict.rule) == (Action.THROTTLE, Code.ALLOW, "slow")
    assert found.verdict.lets_through
    assert found.measures.max_response == Cap(10, "all")


def test_one_bad_answer_of_the_resolver_is_enough():
    policy = index(rule("allow", "x", to=["x.example"]), rule("never", "n", to=["metadata"]))

    assert judge(policy, "https://x.example/", PUBLIC, OTHER) == (Code.ALLOW, "x", ("x",), PUBLIC)
    assert judge(policy, "https://x.example/", PUBLIC, METADATA) == (Code.NEVER, "n", ("x", "n"), METADATA)
    assert judge(policy, "https://x.example/", PUBLIC, INSIDE) == (Code.PRIVATE_ADDRESS, None, ("x",), INSIDE)


def test_of_two_refused_addresses_the_one_with_the_first_rule_decides():
    policy = index(rule("deny", "first", to=["9.9.9.9"]), rule("deny", "second", to=["8.8.8.8"]))

    assert judge(policy, "https://x.example/", PUBLIC, OTHER) == (Code.RULE_DENY, "first", ("first",), OTHER)


@pytest.mark.parametrize(
    "text", ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fd00:ec2::254"]
)
def test_never_metadata_catches_the_address_in_every_disguise(text):
    policy = index(
        rule("allow", "x", to=["x.example"], address=["0.0.0.0/0", "::/0"]), rule("never", "n", to=["metadata"])
    )

    assert judge(policy, "https://x.example/", ip_address(text))[:2] == (Code.NEVER, "n")
    assert judge(policy, f"https://[{text}]/" if ":" in text else f"https://{text}/")[:2] == (Code.NEVER, "n")


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        pytest.param({"to": ["x.example"]}, Code.PRIVATE_ADDRESS, id="a name alone"),
        pytest.param({"to": ["x.example"], "address": ["10.0.0.0/8"]}, Code.ALLOW, id="the name and its range"),
        pytest.param({"to": ["x.example"], "address": ["0.0.0.0/0"]}, Code.PRIVATE_ADDRESS, id="a range of everything"),
        pytest.param({"to": ["x.example"], "address": ["public-internet", "10.0.0.0/8"]}, Code.ALLOW, id="two ranges"),
        pytest.param({"to": ["x.example"], "address": ["192.168.0.0/16"]}, Code.PRIVATE_ADDRESS, id="another range"),
        pytest.param({"to": ["10.0.0.0/8"]}, Code.PRIVATE_ADDRESS, id="a range in to is for literals"),
        pytest.param({"address": ["private-networks"]}, Code.ALLOW, id="any name at these addresses"),
    ],
)
def test_a_name_leads_inside_only_where_a_grant_says_so(keys, code):
    assert judge(index(rule("allow", "inside", **keys)), "https://x.example/", INSIDE)[0] is code


@pytest.mark.parametrize(
    ("to", "code"),
    [
        pytest.param(["10.0.0.0/8"], Code.ALLOW, id="its block"),
        pytest.param(["0.0.0.0/0"], Code.PRIVATE_ADDRESS, id="everything"),
        pytest.param(["0.0.0.0/0", "10.1.2.3"], Code.ALLOW, id="everything, and the address itself"),
        pytest.param(["https://10.1.2.3/**"], Code.ALLOW, id="a URL"),
        pytest.param(["https://10.1.2.3/other", "0.0.0.0/0"], Code.PRIVATE_ADDRESS, id="a URL that may not be the one"),
        pytest.param(["https://10.1.2.3/**", "https://10.1.2.3/a"], Code.ALLOW, id="two URLs, both of the address"),
        pytest.param([".example"], Code.PRIVATE_ADDRESS, id="a name never means an address"),
    ],
)
def test_an_inside_literal_needs_a_range_written_for_it(to, code):
    assert judge(index(rule("allow", "r", to=to)), "https://10.1.2.3/a")[0] is code


def test_an_exception_lets_through_what_a_refusal_would_refuse():
    policy = index(
        rule("allow", "x", to=["x.example"], address=["10.0.0.0/8"]),
        rule("never", "n", to=["private-networks"], holes=[conditions(to=["10.1.2.3"])]),
    )

    assert judge(policy, "https://x.example/", INSIDE)[0] is Code.ALLOW
    assert judge(policy, "https://x.example/", ip_address("10.1.2.4"))[0] is Code.NEVER


def test_a_range_in_the_exception_of_a_grant_judges_what_the_name_resolves_to():
    policy = index(rule("allow", "x", to=["x.example"], holes=[conditions(to=["8.8.8.0/24"])]))

    assert judge(policy, "https://x.example/", PUBLIC)[0] is Code.DEFAULT_DENY
    assert judge(policy, "https://x.example/", OTHER)[0] is Code.ALLOW


@pytest.mark.parametrize(
    ("text", "code"), [("64:ff9b::a9fe:a9fe", Code.PRIVATE_ADDRESS), ("64:ff9b::a01:203", Code.ALLOW)]
)
def test_the_exception_of_a_grant_sees_the_address_inside_another(text, code):
    policy = index(rule("allow", "x", address=["64:ff9b::/96"], holes=[conditions(address=["metadata"])]))

    assert judge(policy, "https://x.example/", ip_address(text))[0] is code


def test_the_exception_of_a_refusal_is_not_widened_by_the_address_inside_another():
    policy = index(
        rule("allow", "x", address=["64:ff9b::/96"]),
        rule("never", "n", to=["private-networks"], holes=[conditions(address=["10.1.2.3"])]),
    )

    assert judge(policy, "https://x.example/", ip_address("64:ff9b::a01:203"))[0] is Code.NEVER


def test_a_grant_must_hold_under_both_readings_and_a_refusal_under_one():
    grants = index(rule("allow", "r", paths=["/a/*"]))
    both = index(rule("allow", "r", paths=["/a/*", "/a%2Fb"]))
    refuses = index(rule("allow", "all"), rule("deny", "d", paths=["/a/b"]))

    assert judge(grants, "https://x.example/a%2Fb", PUBLIC)[0] is Code.DEFAULT_DENY
    assert judge(both, "https://x.example/a%2Fb", PUBLIC)[0] is Code.ALLOW
    assert judge(refuses, "https://x.example/a%2Fb", PUBLIC)[0] is Code.RULE_DENY


def test_anonymous_is_covered_only_where_it_is_named():
    policy = index(
        rule("allow", "all"), rule("allow", "star", agents=["*"]), rule("deny", "named", agents=["anonymous"])
    )

    assert judge(policy, "https://x.example/", PUBLIC, agent="local")[2] == ("all", "star")
    assert judge(policy, "https://x.example/", PUBLIC, agent="anonymous")[2] == ("named",)


def test_a_refusal_without_from_holds_for_anonymous_too():
    policy = index(
        rule("allow", "a", agents=["anonymous"]),
        rule("deny", "d", to=["x.example"]),
        rule("never", "n", to=["y.example"]),
    )

    assert judge(policy, "https://x.example/", PUBLIC, agent="anonymous")[0] is Code.RULE_DENY
    assert judge(policy, "https://y.example/", PUBLIC, agent="anonymous")[0] is Code.NEVER


def test_an_exception_without_from_holds_for_anonymous_too():
    policy = index(rule("allow", "a", agents=["anonymous"], holes=[conditions(paths=["/secret"])]))

    assert judge(policy, "https://x.example/secret", PUBLIC, agent="anonymous")[0] is Code.DEFAULT_DENY


def test_governors_own_listeners_are_refused_though_a_rule_allows_them():
    policy = index(rule("allow", "x", to=["10.1.2.3"]))
    own = frozenset({(INSIDE, 443)})

    assert judge(policy, "https://10.1.2.3/", own=own) == (Code.NEVER, None, ("x",), INSIDE)
    assert judge(policy, "https://10.1.2.3/", own=frozenset({(INSIDE, 8080)}))[0] is Code.ALLOW


def test_a_host_without_addresses_is_refused():
    found = address_stage(index(rule("allow", "all")), get("https://x.example/"), (), NOBODY)

    assert not found.verdict.lets_through
    assert found.verdict.code is Code.RESOLVE_FAILED


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        pytest.param([rule("allow", "x", to=["y.example"])], Code.DEFAULT_DENY, id="nothing could allow it"),
        pytest.param([rule("allow", "x", to=["8.8.8.8"])], Code.DEFAULT_DENY, id="only literals are allowed"),
        pytest.param([rule("allow", "x"), rule("deny", "d", to=["x.example"])], Code.RULE_DENY, id="a deny by name"),
        pytest.param([rule("deny", "d"), rule("never", "n")], Code.NEVER, id="the strictest on the name"),
        pytest.param([rule("allow", "x")], None, id="an allow"),
        pytest.param([rule("allow", "x", address=["10.0.0.0/8"])], None, id="an allow that hangs on the address"),
        pytest.param([rule("allow", "x"), rule("deny", "d", to=["10.0.0.0/8"])], None, id="a deny on addresses"),
        pytest.param([rule("allow", "x"), rule("deny", "d", holes=[conditions(address=["8.8.8.8"])])], None,
                     id="a deny with an exception on addresses"),
    ],
)  # fmt: skip
def test_a_name_is_asked_only_when_the_rules_on_names_would_let_it_through(rules, code):
    found = name_stage(index(*rules), get("https://x.example/"))

    assert (found and found.verdict.code) == code
    assert found is None or found.address is None


def test_a_literal_needs_no_name_stage():
    assert name_stage(index(), get("https://8.8.8.8/")) is None


@pytest.mark.parametrize(
    ("groups", "address", "literal", "code"),
    [
        (("a",), PUBLIC, False, Code.ALLOW),
        (("a", "d"), PUBLIC, False, Code.RULE_DENY),
        (("a", "d", "n"), PUBLIC, False, Code.NEVER),
        (("a",), INSIDE, False, Code.PRIVATE_ADDRESS),
        (("a", "i"), INSIDE, False, Code.ALLOW),
        (("l",), INSIDE, True, Code.ALLOW),
        ((), PUBLIC, True, Code.DEFAULT_DENY),
        ((), INSIDE, True, Code.PRIVATE_ADDRESS),
        ((), None, False, Code.DEFAULT_DENY),
        (("d",), None, False, Code.RULE_DENY),
    ],
)
def test_a_verdict_can_be_replayed_from_the_rules_that_held(groups, address, literal, code):
    rules = {"a": rule("allow", "a"), "d": rule("deny", "d"), "n": rule("never", "n"),
             "i": rule("allow", "i", address=["10.0.0.0/8"]), "l": rule("allow", "l", to=["10.1.2.3"])}  # fmt: skip

    assert from_groups(rules, groups, address, literal, **PLAIN).code is code


def test_a_group_that_is_no_rule_is_told():
    with pytest.raises(KeyError):
        from_groups({}, ("gone",), PUBLIC, False, **PLAIN)


def test_a_verdict_carries_what_the_agent_is_told_and_nothing_the_agent_wrote():
    policy = index(rule("deny", "no-x", to=["x.example"], tell="ask the platform team"))
    verdict = name_stage(policy, get("https://x.example/secret-path")).verdict

    assert (verdict.action, verdict.tell, verdict.reason) == (Action.DENY, "ask the platform team", "rule no-x")


X = "https://x.example/"  # 18 bytes long
WEBSOCKET = WebSocketMeasures()
TEN = rule("limit", "limits-1", max_request=10)


@pytest.mark.parametrize(
    ("rules", "body_bytes", "code", "by"),
    [
        pytest.param([rule("allow", "a")], 16 * 2**20, Code.ALLOW, "a", id="the default"),
        pytest.param([rule("allow", "a")], 16 * 2**20 + 1, Code.BODY_TOO_LARGE, None, id="more than the default"),
        pytest.param([rule("allow", "a", max_request=10)], 10, Code.ALLOW, "a", id="as much as the rule says"),
        pytest.param([rule("allow", "a", max_request=10)], 11, Code.BODY_TOO_LARGE, "a", id="more than the rule says"),
        pytest.param([rule("allow", "a", max_request=0)], 1, Code.BODY_TOO_LARGE, "a", id="any body at all"),
        pytest.param([rule("allow", "a", max_request=2**30)], 2**30, Code.ALLOW, "a", id="a rule that allows a lot"),
        pytest.param([rule("allow", "a"), TEN], 11, Code.BODY_TOO_LARGE, "limits-1", id="more than a limit"),
        pytest.param([rule("allow", "a"), rule("limit", "limits-1", to=["y.example"], max_request=10)], 11, Code.ALLOW,
                     "a", id="a limit elsewhere"),
        pytest.param([rule("allow", "a"), rule("deny", "d"), TEN], 11, Code.RULE_DENY, "d", id="a deny beats a size"),
        pytest.param([rule("allow", "a"), rule("never", "n"), TEN], 11, Code.NEVER, "n", id="a never beats a size"),
        pytest.param([TEN], 11, Code.DEFAULT_DENY, None, id="a limit alone"),
        pytest.param([TEN], 5, Code.DEFAULT_DENY, None, id="a limit grants nothing"),
    ],
)  # fmt: skip
def test_a_body_larger_than_what_holds_is_refused(rules, body_bytes, code, by):
    policy = index(*rules)
    facts = get(X, body_bytes=body_bytes)
    found = address_stage(policy, facts, [PUBLIC], NOBODY)

    assert (found.verdict.code, found.verdict.rule) == (code, by)
    early = name_stage(policy, facts)
    assert (early.verdict if early else Code.ALLOW) == (Code.ALLOW if code is Code.ALLOW else found.verdict)


def test_a_url_longer_than_what_holds_is_refused_with_its_query():
    policy = index(rule("allow", "a", max_url=20), rule("limit", "limits-1", agents=["codex"], max_url=18))

    assert judge(policy, X + "ab", PUBLIC)[:2] == (Code.ALLOW, "a")
    assert judge(policy, X + "abc", PUBLIC)[:2] == (Code.URL_TOO_LONG, "a")
    assert judge(policy, X + "?ab", PUBLIC)[:2] == (Code.URL_TOO_LONG, "a")
    assert judge(policy, X, PUBLIC, agent="codex")[:2] == (Code.ALLOW, "a")
    assert judge(policy, X + "a", PUBLIC, agent="codex")[:3] == (Code.URL_TOO_LONG, "limits-1", ("a", "limits-1"))


def test_a_limit_holds_for_anonymous_and_under_either_reading_of_a_path():
    policy = index(
        rule("allow", "a", agents=["anonymous"]), rule("limit", "limits-1", paths=["/a/b"], max_response=9))
    facts = get("https://x.example/a%2Fb", "anonymous")

    assert address_stage(policy, facts, [PUBLIC], NOBODY).measures.max_response == Cap(9, "limits-1")


@pytest.mark.parametrize("order", [1, -1])
def test_a_limit_on_one_of_several_addresses_holds_for_the_request(order):
    limit = rule("limit", "limits-1", to=["9.9.9.9"], max_request=10, max_response=5, max_url=20, in_flight=2)
    policy, both = index(rule("allow", "a"), limit), [PUBLIC, OTHER][::order]

    found = address_stage(policy, get(X, body_bytes=10), both, NOBODY)
    larger = address_stage(policy, get(X, body_bytes=11), both, NOBODY)
    longer = address_stage(policy, get(X + "abc", body_bytes=11), both, NOBODY)

    assert found.verdict.code is Code.ALLOW
    assert (found.measures.max_response, found.measures.in_flight) == (Cap(5, "limits-1"), Cap(2, "limits-1"))
    assert (larger.verdict.code, larger.address) == (Code.BODY_TOO_LARGE, OTHER)
    assert (longer.verdict.code, longer.address) == (Code.URL_TOO_LONG, OTHER)


def test_a_limit_sees_the_address_inside_another():
    policy = index(
        rule("allow", "a", address=["64:ff9b::/96"]), rule("limit", "limits-1", to=["metadata"], max_response=5))

    found = address_stage(policy, get(X), [ip_address("64:ff9b::a9fe:a9fe")], NOBODY)

    assert found.measures.max_response == Cap(5, "limits-1")


def test_a_size_that_only_one_address_would_lift_waits_for_the_addresses():
    policy = index(
        rule("allow", "a", max_request=10), rule("allow", "big", address=["9.9.9.9"], max_request=100))

    assert name_stage(policy, get(X, body_bytes=50)) is None
    assert name_stage(policy, get(X, body_bytes=101)).verdict.rule == "big"
    assert judge(policy, X, OTHER)[0] is Code.ALLOW
    assert address_stage(policy, get(X, body_bytes=50), [PUBLIC], NOBODY).verdict.code is Code.BODY_TOO_LARGE
    assert address_stage(policy, get(X, body_bytes=50), [OTHER], NOBODY).verdict.code is Code.ALLOW


def test_a_refused_size_tells_what_the_rule_tells():
    policy = index(rule("allow", "a", max_request=10, tell="send it in parts"))

    assert name_stage(policy, get(X, body_bytes=11)).verdict.tell == "send it in parts"


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        pytest.param([], Code.UPGRADE_REFUSED, id="nothing"),
        pytest.param([rule("allow", "a")], Code.UPGRADE_REFUSED, id="a rule without websocket"),
        pytest.param([rule("allow", "a", websocket=WEBSOCKET)], Code.ALLOW, id="a rule with it"),
        pytest.param([rule("allow", "a", address=["10.0.0.0/8"])], Code.UPGRADE_REFUSED, id="no rule at any address"),
        pytest.param([rule("allow", "a"), rule("deny", "d")], Code.RULE_DENY, id="a deny"),
        pytest.param([rule("never", "n")], Code.NEVER, id="a never"),
        pytest.param([rule("allow", "a", to=["wss://x.example/**"], websocket=WEBSOCKET)], Code.ALLOW,
                     id="a URL pattern"),
        pytest.param([rule("allow", "a", to=["https://x.example/**"], websocket=WEBSOCKET)], Code.UPGRADE_REFUSED,
                     id="a URL pattern for https"),
    ],
)  # fmt: skip
def test_an_upgrade_passes_only_where_a_rule_speaks_of_it(rules, code):
    facts = get("wss://x.example/")
    early = name_stage(index(*rules), facts)

    assert address_stage(index(*rules), facts, [PUBLIC], NOBODY).verdict.code is code
    assert early is None if code is Code.ALLOW else early.verdict.code is code


def test_an_upgrade_to_an_inside_address_is_refused_as_such():
    assert judge(index(), "wss://10.1.2.3/")[0] is Code.PRIVATE_ADDRESS
    assert judge(index(rule("allow", "a", websocket=WEBSOCKET)), "wss://x.example/", INSIDE)[0] is Code.PRIVATE_ADDRESS


@pytest.mark.parametrize("order", [1, -1])
def test_an_upgrade_that_one_of_its_addresses_is_not_allowed_is_refused(order):
    policy = index(rule("allow", "a", address=["8.8.8.8"], websocket=WEBSOCKET))

    assert judge(policy, "wss://x.example/", PUBLIC)[0] is Code.ALLOW
    assert judge(policy, "wss://x.example/", *[PUBLIC, OTHER][::order])[0] is Code.UPGRADE_REFUSED


def test_the_remembered_refusal_of_a_request_is_not_that_of_an_upgrade():
    policy = index(rule("allow", "a", to=["y.example"]))

    assert judge(policy, X, PUBLIC)[0] is Code.DEFAULT_DENY
    assert judge(policy, "wss://x.example/", PUBLIC)[0] is Code.UPGRADE_REFUSED
    assert judge(policy, X, PUBLIC)[0] is Code.DEFAULT_DENY


def test_the_headers_tell_the_most_that_any_address_would_allow():
    policy = index(
        rule("allow", "a", max_request=10),
        rule("allow", "big", address=["9.9.9.9"], max_request=100, stream_request=True),
        rule("limit", "limits-1", agents=["codex"], max_request=50),
        rule("limit", "limits-2", to=["9.9.9.9"], max_request=5),
    )

    found, limited = expected(policy, get(X)), expected(policy, get(X, "codex"))

    assert (found.refused, found.max_request, found.may_stream) == (None, Cap(100, "big"), True)
    assert limited.max_request == Cap(50, "limits-1")
    assert expected(policy, get(X, "codex", body_bytes=51)).refused.verdict.rule == "limits-1"
    assert expected(policy, get(X, "codex", body_bytes=50)).refused is None


def test_the_headers_tell_all_of_a_host_that_is_an_address():
    policy = index(rule("allow", "a", to=["8.8.8.8"], max_request=10), rule("deny", "d", to=["9.9.9.9"]))
    own = frozenset({(PUBLIC, 443)})

    assert expected(policy, get("https://8.8.8.8/")).max_request == Cap(10, "a")
    assert expected(policy, get("https://8.8.8.8/", body_bytes=11)).refused.verdict.code is Code.BODY_TOO_LARGE
    assert expected(policy, get("https://9.9.9.9/")).refused.verdict.code is Code.RULE_DENY
    assert expected(policy, get("https://8.8.8.8/"), own).refused.verdict.code is Code.NEVER


@pytest.mark.parametrize(
    ("groups", "scheme", "body_bytes", "url_bytes", "code", "by"),
    [
        (("a",), "https", 10, 20, Code.ALLOW, "a"),
        (("a",), "https", 11, 20, Code.BODY_TOO_LARGE, "a"),
        (("a",), "https", 11, 21, Code.URL_TOO_LONG, "a"),
        (("a", "limits-1"), "https", 6, 0, Code.BODY_TOO_LARGE, "limits-1"),
        (("a", "limits-1"), "https", 5, 0, Code.ALLOW, "a"),
        (("limits-1",), "https", 6, 0, Code.DEFAULT_DENY, None),
        (("limits-1",), "wss", 6, 0, Code.UPGRADE_REFUSED, None),
        (("a", "d", "limits-1"), "https", 6, 0, Code.RULE_DENY, "d"),
    ],
)
def test_a_verdict_on_sizes_can_be_replayed_from_what_held(groups, scheme, body_bytes, url_bytes, code, by):
    held = rule("allow", "a", max_request=10, max_url=20), rule("deny", "d"), rule("limit", "limits-1", max_request=5)
    rules = {each.name: each for each in index(*held).rules}
    verdict = from_groups(rules, groups, PUBLIC, False, **PLAIN | {
        "scheme": scheme, "body_bytes": body_bytes, "url_bytes": url_bytes})

    assert (verdict.code, verdict.rule) == (code, by)


ALL = rule("allow", "all")
TO_X, TO_INSIDE = rule("allow", "x", to=["x.example"]), rule("allow", "inside", to=["10.0.0.0/8"])


@pytest.mark.parametrize(
    ("rules", "url", "reaches"),
    [
        pytest.param([], "https://x.example/", False, id="nothing is allowed"),
        pytest.param([rule("allow", "x", paths=["/a"])], "https://x.example/", True, id="some path is"),
        pytest.param([TO_X], "https://y.example/", False, id="another host is"),
        pytest.param([rule("allow", "x", agents=["codex"])], "https://x.example/", False, id="another agent is"),
        pytest.param(
            [rule("allow", "x", to=["http://x.example/**"])], "https://x.example/", False, id="another port is"
        ),
        pytest.param([ALL, rule("deny", "d", to=["x.example"])], "https://x.example/", False, id="denied whole"),
        pytest.param([ALL, rule("deny", "d", methods=["POST"])], "https://x.example/", True, id="denied in part"),
        pytest.param([ALL, rule("limit", "limits-1", max_request=0)], "https://x.example/", True, id="only limited"),
        pytest.param([rule("allow", "x", holes=[TO_X.where])], "https://x.example/", False, id="excepted"),
        pytest.param([ALL, rule("deny", "d", json={"a": "x"})], "https://x.example/", True, id="denied by a field"),
        pytest.param([rule("allow", "x", json={"a": "x"})], "https://x.example/", True, id="allowed by a field"),
        pytest.param(
            [rule("allow", "x", holes=[conditions(json={"a": "x"})])],
            "https://x.example/",
            True,
            id="excepted by a field",
        ),
        pytest.param([TO_INSIDE], "https://10.1.2.3/", True, id="an inside literal, granted"),
        pytest.param([ALL], "https://10.1.2.3/", False, id="an inside literal, not granted"),
        pytest.param([TO_INSIDE, rule("never", "n", to=["10.1.2.3"])], "https://10.1.2.3/", False, id="never reached"),
        pytest.param([TO_INSIDE], "https://x.example/", False, id="only literals are granted"),
        pytest.param([TO_INSIDE], "https://11.1.2.3/", False, id="another literal is granted"),
        pytest.param(
            [rule("allow", "a", address=["10.0.0.0/8"])], "https://10.1.2.3/", True, id="an inside literal by address"),
        pytest.param([ALL, rule("never", "n", to=["10.0.0.0/8"])], "https://x.example/", True, id="never at addresses"),
        *[pytest.param([rule("allow", "x", holes=[hole])], "https://x.example/", reaches, id=f"excepted {name}")
          for name, hole, reaches in (
              ("for the agent", conditions(agents=["claude-*"]), False),
              ("for another agent", conditions(agents=["codex"]), True),
              ("at another host", conditions(to=["y.example"]), True),
              ("for another agent there", conditions(to=["x.example"], agents=["codex"]), True),
              ("as a URL", conditions(to=["https://x.example/**"]), True),
              ("in a method", conditions(methods=["GET"]), True),
              ("at a path", conditions(paths=["/a"]), True),
              ("at every path", conditions(paths=["/a", "/**"]), False),
              ("at an address", conditions(address=["10.0.0.0/8"]), True),
              ("at its port", replace(conditions(), ports=(PortRange(443, 443),)), False),
              ("at another port", replace(conditions(), ports=(PortRange(80, 80),)), True),
              ("until a time", replace(conditions(), expires=10**9), True),
          )],
        *[pytest.param([ALL, replace(rule("deny", "d", **keys), holes=tuple(holes))], "https://x.example/", reaches,
                       id=f"denied {name}")
          for name, keys, holes, reaches in (
              ("to the agent", {"agents": ["claude-*"]}, [], False),
              ("to another agent", {"agents": ["codex"]}, [], True),
              ("at a path", {"paths": ["/a"]}, [], True),
              ("at every path", {"paths": ["/a", "/**"]}, [], False),
              ("at an address", {"address": ["10.0.0.0/8"]}, [], True),
              ("as a URL", {"to": ["https://x.example/**"]}, [], True),
              ("but for an exception", {}, [conditions(methods=["GET"])], True),
          )],
        *[pytest.param([ALL, replace(rule("deny", "d"), where=replace(conditions(), ports=(PortRange(port, port),)))],
                       "https://x.example/", reaches, id=f"denied at port {port}")
          for port, reaches in ((443, False), (80, True))],
        pytest.param([ALL, replace(rule("deny", "d"), observed=True)], "https://x.example/", True,
                     id="denied on trial"),
        pytest.param([ALL, rule("deny", "d", address=["8.8.8.0/24"])], "https://8.8.8.8/", False,
                     id="denied at that address"),
    ],
)
def test_a_tunnel_reaches_where_some_request_may_pass(rules, url, reaches):
    facts = get(url)

    assert index(*rules).connect_reaches(facts.agent.id, facts.host, facts.port) is reaches


JSON = ((b"content-type", b"application/json"),)
WANTS, WANTS_TOO = rule("allow", "wants", json={"a": "x"}), rule("allow", "streams", stream_request=True)
REFUSES = rule("deny", "refuses", json={"a": "x"})


@pytest.mark.parametrize(
    ("rules", "body", "code"),
    [
        pytest.param([WANTS], b'{"a": "x"}', Code.ALLOW, id="granted"),
        pytest.param([WANTS], b'{"a": "y"}', Code.DEFAULT_DENY, id="not granted"),
        pytest.param([WANTS], UNREADABLE, Code.DEFAULT_DENY, id="unreadable, not granted"),
        pytest.param([ALL, REFUSES], b'{"a": "x"}', Code.RULE_DENY, id="refused"),
        pytest.param([ALL, REFUSES], b'{"a": "y"}', Code.ALLOW, id="not refused"),
        pytest.param([ALL, REFUSES], UNREADABLE, Code.RULE_DENY, id="unreadable, refused"),
    ],
)
def test_what_is_unreadable_is_refused_and_never_granted(rules, body, code):
    facts = replace(get("https://x.example/"), fields=Fields("", JSON, body))

    assert address_stage(index(*rules), facts, [PUBLIC], NOBODY).verdict.code is code


@pytest.mark.parametrize("url", ["https://x.example/", "https://8.8.8.8/"])
@pytest.mark.parametrize(
    ("rules", "refused", "may_stream"),
    [
        pytest.param([WANTS], False, False, id="a grant may hold"),
        pytest.param([ALL, REFUSES], False, False, id="a refusal need not hold"),
        pytest.param([WANTS_TOO, REFUSES], False, True, id="and a body may stream, if it is refused by none"),
        pytest.param([WANTS, rule("deny", "d")], True, False, id="what no body can lift"),
        pytest.param([REFUSES], True, False, id="nothing grants it"),
    ],
)
def test_before_the_body_has_come_only_what_no_body_can_lift_is_refused(rules, refused, may_stream, url):
    facts = replace(get(url), fields=Fields("", JSON, UNREAD))
    found = expected(index(*rules), facts)

    assert (found.refused is not None, found.may_stream) == (refused, may_stream)


def test_a_body_that_streams_is_refused_by_a_rule_that_would_look_at_it():
    policy = index(WANTS_TOO, REFUSES)
    facts = replace(get("https://x.example/"), fields=Fields("", JSON, UNREADABLE))

    assert address_stage(policy, facts, [PUBLIC], NOBODY).verdict.code is Code.RULE_DENY
