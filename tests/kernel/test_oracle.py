"""What the analyser says of whole policies is what z3 says, which was told their meaning in another way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from random import Random

import pytest
import z3

from kernel.analysis.difference import Relation
from kernel.analysis.review import Review, review
from kernel.policy import Assertion, Policy, Rule
from kernel.question import facts_of, judge_assertions
from kernel.verdict import Code
from tests.conftest import SCALE, scaled
from tests.kernel.oracle import Found, Oracle
from tests.kernel.oracle_policies import changed_policy, in_tiers, random_policy
from tests.kernel.reference_matcher import holds, judge
from tests.kernel.test_analysis_difference import checked
from tests.kernel.test_analysis_review import _check

QUESTIONS = 2000 if SCALE >= 10 else scaled(60)
OF_DIFFERENCES, OF_ASSERTIONS = QUESTIONS // 3, QUESTIONS // 6
OF_REVIEWS = QUESTIONS - OF_DIFFERENCES - OF_ASSERTIONS


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    oracle = Oracle()
    yield oracle
    print(f"z3 was asked {oracle.asked.total()} questions, {dict(oracle.asked)}, and gave up {oracle.given_up}")


def policies(first: int) -> Iterator[tuple[Random, Policy]]:
    """Random policies without end; what a run asks of them is always the same."""
    seed = first
    while True:
        random = Random(seed)
        yield random, random_policy(random)
        seed += 1


def code_of(policy: Policy, found: Found) -> Code:
    return judge(policy, found.facts, [found.address], set()).code


def test_one_policy_lets_pass_more_or_less_than_another_where_z3_finds_a_request(oracle):
    for number, (random, policy) in enumerate(policies(1)):
        if oracle.asked.total() >= OF_DIFFERENCES:
            break
        old = policy if number % 3 else in_tiers(random, policy)
        new = changed_policy(random, policy) if number % 2 else random_policy(random)
        new = new if number % 6 else in_tiers(random, new)
        more = oracle.some("more", z3.And(oracle.passes(new), z3.Not(oracle.passes(old))))
        less = oracle.some("less", z3.And(oracle.passes(old), z3.Not(oracle.passes(new))))
        relation = checked(old, new).relation
        if not (more.known and less.known):
            continue

        wanted = {(True, True): Relation.INCOMPARABLE, (True, False): Relation.LOOSER,
                  (False, True): Relation.STRICTER, (False, False): Relation.EQUAL}  # fmt: skip
        assert relation is wanted[more.exists, less.exists], (old, new, more, less)
        if more.exists:
            assert (code_of(old, more) is not Code.ALLOW, code_of(new, more)) == (True, Code.ALLOW), (old, new, more)
        if less.exists:
            assert (code_of(old, less), code_of(new, less) is not Code.ALLOW) == (Code.ALLOW, True), (old, new, less)


def test_a_review_finds_exactly_what_z3_finds(oracle):
    for _, policy in policies(100_000):
        if oracle.asked.total() >= OF_REVIEWS:
            break
        found = review(policy)

        for finding in found.findings:
            _check(policy, finding)
        assert found.undecided == ()
        assert set(found.proved) == {never.name for never in policy.nevers}
        _Checked(oracle, policy, found).check()


class _Checked:
    """One review, held against z3 finding by finding, and rule by rule where nothing was found."""

    def __init__(self, oracle: Oracle, policy: Policy, found: Review) -> None:
        self._oracle, self._policy = oracle, policy
        self._named = {code: {finding.rules[0] for finding in found.findings if finding.code == code}
                       for code in ("E402", "W301", "W302", "W303", "I304", "W305")}
        repeated = [f.rules[:-1] for f in found.findings if f.code == "W302" and " repeat" in f.message]
        self._named["W302"] |= {name for names in repeated for name in names}
        self._idle = self._named["E402"] | self._named["W301"] | self._named["W305"]

    def check(self) -> None:
        refused, passes = self._oracle.refused(self._policy), self._oracle.passes(self._policy)
        for rule in self._policy.items:
            self._matches(rule)
        for rule in self._policy.rules:
            if rule.verb.grants:
                self._takes_effect(rule, refused)
            elif rule.name not in self._named["W305"]:
                self._cuts(rule, passes)
            if rule.name not in self._idle | self._named["W302"]:
                self._is_needed(rule)
        self._is_the_same_without_what_is_needless(passes)

    def _some(self, about: str, claim: z3.BoolRef, *, wanted: bool, what: object) -> Found:
        found = self._oracle.some(about, claim)
        if found.known:
            assert found.exists is wanted, (about, what, self._named, self._policy, found)
        return found

    def _matches(self, rule: Rule) -> None:
        where = self._some("matches", self._oracle.holds(rule), wanted=rule.name not in self._named["W305"], what=rule)
        if where.exists:
            assert holds(rule, where.facts, where.address), (rule, where)

    def _takes_effect(self, rule: Rule, refused: z3.BoolRef) -> None:
        claim = z3.And(self._oracle.opens(rule), z3.Not(refused))
        where = self._some("has an effect", claim, wanted=rule.name not in self._idle, what=rule)
        if where.exists:
            assert code_of(self._policy, where) is Code.ALLOW, (rule, where)

    def _cuts(self, rule: Rule, passes: z3.BoolRef) -> None:
        """It cuts something out of a grant that has an effect itself."""
        grants = [each for each in self._policy.rules if each.verb.grants and each.name not in self._idle]
        claim = z3.And(self._oracle.holds(rule), z3.Or(*map(self._oracle.opens, grants)))
        self._some("cuts", claim, wanted=rule.name in self._named["I304"], what=rule)

    def _is_needed(self, rule: Rule) -> None:
        """Something is refused by this rule alone, or passes by it alone, of all that are needed."""
        gone = self._named["W302"] | self._idle | {rule.name}
        others = [each for each in self._policy.rules if each.name not in gone and each.verb is rule.verb]
        if rule.verb.grants:
            does, refused = self._oracle.opens, [z3.Not(self._oracle.refused(self._policy))]
        else:
            does, refused, others = self._oracle.holds, [], [*others, *self._policy.nevers]
        self._some("is needed", z3.And(does(rule), *refused, z3.Not(z3.Or(*map(does, others)))), wanted=True, what=rule)

    def _is_the_same_without_what_is_needless(self, passes: z3.BoolRef) -> None:
        gone = self._named["W302"] | self._named["W301"] | self._named["W305"]
        if not gone:
            return
        left = [rule for rule in self._policy.rules if rule.name not in gone]
        nevers = [never for never in self._policy.nevers if never.name not in gone]
        less = replace(self._policy, rules=tuple(left), nevers=tuple(nevers))
        self._some("needless", self._oracle.passes(less) != passes, wanted=False, what=less)


def test_an_assertion_about_one_request_holds_where_z3_says_that_it_passes(oracle):
    for random, policy in policies(200_000):
        if oracle.asked.total() >= OF_ASSERTIONS:
            break
        agent = random.choice(["a-1", "b", "z", "anonymous"])
        host = random.choice(["x.z", "y.x.z", "8.8.8.8", "[2a00::1]"])
        url = f"https://{host}{random.choice(['', ':8443'])}{random.choice(['/', '/a', '/a/b', '/a%2Fb', '/b'])}"
        facts = facts_of(agent, random.choice(["GET", "PUT"]), url)
        asked = Assertion(True, agent, facts.method, url, policy.items[0].position)
        address = facts.host.address or ip_address("8.8.8.8")
        asked = replace(asked, address=None if facts.host.address else address)
        found = oracle.some("assertion", z3.And(oracle.passes(policy), oracle.is_request(facts, address)))

        if found.known:
            refuted = list(judge_assertions(replace(policy, assertions=(asked,))))
            assert found.exists is not bool(refuted), (policy, asked)
            denied = list(judge_assertions(replace(policy, assertions=(replace(asked, allowed=False),))))
            assert bool(refuted) is not bool(denied)
