"""Small random policies of few letters, in which rules meet, hide and repeat each other often."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from kernel.address import named_ranges
from kernel.pattern import address_range, agent_pattern, host_pattern, path_glob, port_range, url_pattern
from kernel.policy import Conditions, Policy, Position, Rule, Tier, Verb

NAMED = named_ranges(())
AGENTS = ["a*", "*-1", "a-1", "b*", "*", "anonymous"]
HOSTS = ["x.z", "*.x.z", ".x.z", "y.x.z", "*.z", "y"]
RANGES = ["10.0.0.0/8", "10.1.0.0/16", "8.8.8.0/24", "8.8.8.8", "2a00::/16", "fd00::/8", "public-internet"]
PATHS = ["/**", "/a/**", "/a", "/a/*", "/*", "/*/b", "/a*", "/**/b", "/a%2Fb", "/a/b", "/a/**/b", "/"]
PORTS = ["443", "80", "443-8443", "1-65535"]
URLS = ["https://x.z/a/**", "https://.x.z:8443/**", "http://10.1.0.0/*", "https://8.8.8.8/**", "wss://x.z/**"]


def random_policy(random: Random, *, rules: int = 5) -> Policy:
    """Grants and refusals, now and then with exceptions or a `never:`; some are another rule, slightly changed."""
    made: list[Rule] = []
    for number in range(random.randint(2, rules)):
        verb = random.choice([Verb.ALLOW, Verb.ALLOW, Verb.ALLOW, Verb.DENY, Verb.DENY, Verb.NEVER])
        likeness = random.choice(made).where if made and random.random() < 0.4 else None
        where = _conditions(random, 0.5) if likeness is None else _changed(random, likeness)
        holes = (_changed(random, where),) if random.random() < 0.2 else ()
        made.append(Rule(number, f"{verb}-{number}", verb, where, holes, Position("p.yaml", number + 1, 1)))
    return _policy(made)


def changed_policy(random: Random, policy: Policy) -> Policy:
    """The policy with one rule taken out, put in or changed."""
    rules = [*policy.rules, *policy.nevers]
    place = random.randrange(len(rules))
    kind = random.choice(["out", "in", "changed", "changed"])
    if kind == "in":
        more = random_policy(random, rules=2)
        return _policy([*rules, *(more.rules or more.nevers)[:1]])
    if kind == "out":
        return _policy([rule for rule in rules if rule is not rules[place]])
    old = rules[place]
    rules[place] = Rule(old.number, old.name, old.verb, _changed(random, old.where), old.holes, old.position)
    return _policy(rules)


def in_tiers(random: Random, policy: Policy) -> Policy:
    """The policy with its rules dealt out to two or three tiers; one that passes has only refusals."""
    tiers = tuple(
        Tier(binds=random.choice([None, (agent_pattern(random.choice(AGENTS)),)]), passes=random.random() < 0.2)
        for _ in range(random.choice([2, 3])))

    def dealt(rule: Rule) -> Rule:
        fitting = [number for number, tier in enumerate(tiers) if rule.verb.refuses or not tier.passes]
        own = random.choice(fitting or [0])
        return replace(rule, tier=own, verb=Verb.DENY if rule.verb.grants and tiers[own].passes else rule.verb)

    return replace(policy, rules=tuple(map(dealt, policy.rules)), nevers=tuple(map(dealt, policy.nevers)), tiers=tiers)


def _policy(rules: list[Rule]) -> Policy:
    placed = [Rule(number, f"{rule.verb}-{number}", rule.verb, rule.where, rule.holes, rule.position)
              for number, rule in enumerate(rules)]
    return Policy("0" * 64, ("p.yaml",), tuple(rule for rule in placed if rule.verb is not Verb.NEVER),
                  tuple(rule for rule in placed if rule.verb is Verb.NEVER))


def _conditions(random: Random, chance: float) -> Conditions:
    said = {key: value for key, value in _every_key(random).items() if random.random() < chance}
    return Conditions(**said)


def _changed(random: Random, where: Conditions) -> Conditions:
    """The same with one key said anew or left out."""
    key = random.choice(["agents", "to", "methods", "paths", "address", "ports"])
    said = {name: getattr(where, name) for name in ("agents", "to", "address", "methods", "schemes", "ports", "paths")}
    said[key] = _every_key(random)[key] if said[key] is None or random.random() < 0.7 else None
    return Conditions(**said)


def _every_key(random: Random) -> dict[str, object]:
    def some(items: list[str], read, most: int = 2) -> tuple[object, ...]:
        return tuple(read(text) for text in random.sample(items, random.randint(1, most)))

    def destination(text: str) -> object:
        if "://" in text:
            return url_pattern(text, NAMED)
        return address_range(text, NAMED) if text in RANGES else host_pattern(text)

    return {
        "agents": some(AGENTS, agent_pattern),
        "to": some([*HOSTS, *RANGES, *URLS], destination, 3),
        "address": some(RANGES, lambda text: address_range(text, NAMED)),
        "methods": frozenset(some(["GET", "POST"], str)),
        "schemes": random.choice([frozenset({"https"}), frozenset({"http", "https"}), frozenset({"https", "wss"})]),
        "ports": some(PORTS, port_range, 1),
        "paths": some(PATHS, path_glob, 2),
    }
