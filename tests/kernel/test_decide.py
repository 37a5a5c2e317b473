"""Which verdict wins, at one address and over several, and what the two stages answer for."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from kernel.address import named_ranges
from kernel.decide import address_stage, from_groups, name_stage
from kernel.facts import Agent, RequestFacts
from kernel.match import Index
from kernel.normal import host, path
from kernel.pattern import address_range, agent_pattern, destination, path_glob
from kernel.policy import Conditions, Policy, Position, Rule, Verb
from kernel.verdict import Action, Code

NAMED = named_ranges(["169.254.169.254", "fd00:ec2::254"])
PUBLIC, OTHER, INSIDE = ip_address("8.8.8.8"), ip_address("9.9.9.9"), ip_address("10.1.2.3")
METADATA = ip_address("169.254.169.254")
NOBODY: frozenset = frozenset()


def rule(verb, name, *, to=None, address=None, paths=None, agents=None, methods=None, holes=(), tell=None):
    where = conditions(to=to, address=address, paths=paths, agents=agents, methods=methods)
    return Rule(0, name, Verb(verb), where, tuple(holes), Position("p.yaml", 1, 1), tell=tell)


def conditions(*, to=None, address=None, paths=None, agents=None, methods=None):
    def each(parse, texts):
        return None if texts is None else tuple(parse(text) for text in texts)

    return Conditions(
        agents=each(agent_pattern, agents),
        to=each(lambda text: destination(text, NAMED), to),
        address=each(lambda text: address_range(text, NAMED), address),
        methods=None if methods is None else frozenset(methods),
        paths=each(path_glob, paths),
    )


def index(*rules):
    numbered = [Rule(n, r.name, r.verb, r.where, r.holes, r.position, r.tell) for n, r in enumerate(rules)]
    nevers = tuple(each for each in numbered if each.verb is Verb.NEVER)
    return Index(Policy("", (), tuple(each for each in numbered if each.verb is not Verb.NEVER), nevers))


def get(url, agent="claude-1", method="GET"):
    scheme, _, rest = url.partition("://")
    name, slash, raw = rest.partition("/")
    return RequestFacts(Agent(agent, "proxy-auth"), method, scheme, host(name), 443, path(slash + raw))


def judge(policy, url, *addresses, agent="claude-1", own=NOBODY):
    facts = get(url, agent)
    found = address_stage(policy, facts, addresses or (facts.host.address,), own)
    return found.verdict.code, found.verdict.rule, found.groups, found.address


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

    assert from_groups(rules, groups, address, literal).code is code


def test_a_group_that_is_no_rule_is_told():
    with pytest.raises(KeyError):
        from_groups({}, ("gone",), PUBLIC, False)


def test_a_verdict_carries_what_the_agent_is_told_and_nothing_the_agent_wrote():
    policy = index(rule("deny", "no-x", to=["x.example"], tell="ask the platform team"))
    verdict = name_stage(policy, get("https://x.example/secret-path")).verdict

    assert (verdict.action, verdict.tell, verdict.reason) == (Action.DENY, "ask the platform team", "rule no-x")


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
        pytest.param([rule("allow", "x", holes=[TO_X.where])], "https://x.example/", False, id="excepted"),
        pytest.param([TO_INSIDE], "https://10.1.2.3/", True, id="an inside literal, granted"),
        pytest.param([ALL], "https://10.1.2.3/", False, id="an inside literal, not granted"),
        pytest.param([TO_INSIDE, rule("never", "n", to=["10.1.2.3"])], "https://10.1.2.3/", False, id="never reached"),
    ],
)
def test_a_tunnel_reaches_where_some_request_may_pass(rules, url, reaches):
    facts = get(url)

    assert index(*rules).connect_reaches(facts.agent.id, facts.host, facts.port) is reaches
