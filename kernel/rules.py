"""Rules, never items and limits, from text to `Rule`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kernel.ahead.clauses import NO_CLAUSE, OWN_METHODS, clause
from kernel.ahead.said import Clause
from kernel.conditions import ConditionReader
from kernel.document import Mapping as Tree
from kernel.document import Node, Reader, Scalar, quote
from kernel.llm_terms import refuse_lengths
from kernel.measures import NOTHING_SAID, Rate
from kernel.one_rule import hangs_on_addresses, hosts_of
from kernel.policy import AddressRange, Conditions, HostPattern, Rule, Verb
from kernel.quantity import rate, tally
from kernel.several import Above
from kernel.terms import check_upgrades, grant_terms, is_yes, limit_terms
from kernel.vocabulary import GRANT_TERMS, LATER_VERBS, LIMIT, NEVER, RULE, TERMS_ELSEWHERE, VERBS

_LONGEST_TOLD = 500
_LONGEST_REASON = 4000
_OWN_NAMES = ("never-", "limits-", "rates-")


class RuleReader:
    """Reads the rules of one document, below `above`. `clauses` is what they say that has no effect yet, by rule."""

    def __init__(self, reader: Reader, conditions: ConditionReader, above: Above) -> None:
        self._reader, self._conditions, self._above = reader, conditions, above
        self.clauses: dict[str, Clause] = {}

    def rules(self, node: Node | None) -> tuple[Rule, ...]:
        items = [] if node is None else self._reader.items(node, "rules")
        rules = [self._rule(number, item) for number, item in enumerate(items)]
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, number: int, node: Node) -> Rule | None:
        before = len(self._reader.findings)
        found = self._reader.mapping(node, RULE)
        if found is None:
            return None
        verbs = [key for key in found if key in VERBS or key in LATER_VERBS]
        if len(verbs) != 1:
            self._refuse_verbs(node, found, verbs, already_said=len(self._reader.findings) > before)
            return None
        verb = Verb(verbs[0])
        name = self._rule_name(found[verb])
        where = self._conditions.conditions(found, node if verb is Verb.ALLOW else None)
        holes = self._conditions.holes(found)
        if self._reader.ahead:
            where = self._read_clause(name or "", found, verb, where)
        terms = NOTHING_SAID
        if verb.grants:
            self._check_grant(node, verb, found, where)
            terms = grant_terms(self._reader, found, where.llm)
        else:
            self._refuse_terms(verb, found)
            refuse_lengths(self._reader, found, where.llm, f"a {verb}")
        tell = self._reader.line(found["tell"], "tell", _LONGEST_TOLD) if "tell" in found else None
        why = self._why(found)
        quiet, observed = self._quiet(found, verb), self._observed(found, verb)
        secret = "secret-paths" in found and is_yes(self._reader, found["secret-paths"], "secret-paths")
        risk, pace = self._risk(found, verb), self._pace(found, verb)
        at = self._reader.at(node)
        rule = Rule(number, name or "", verb, where, holes, at, tell, why, terms, quiet, observed, secret,
                    risk=risk, rate=pace)
        self._refuse_for_others(found, rule)
        return rule

    def _refuse_for_others(self, found: Mapping[str, Node], rule: Rule) -> None:
        """Nobody else may end an agent: what follows from where a name leads is others' doing."""
        named = [isinstance(hosts_of(item), HostPattern) for item in rule.where.to or ()]
        if rule.verb is Verb.HALT and hangs_on_addresses(rule) and any(named):
            message = "a halt of names and addresses would end nobody for a name: others say where it leads"
            self._reader.error("E112", found["to"], message, "make two rules: one for the names, one for the addresses")
        ranged = not all(named) or (not named and rule.where.address is not None)
        if rule.verb is Verb.DENY and rule.risk and ranged:
            message = '"risk:" means nothing in a deny of addresses: others say where a name leads'
            self._reader.error("E112", found["risk"], message, "name hosts in to:, or write a halt for these")

    def _risk(self, found: Mapping[str, Node], verb: Verb) -> int:
        """The points that a request costs for which the rule holds."""
        if "risk" in found:
            beside = {"observe": "a deny on trial has no consequences", "quiet": "what is expected costs nothing"}
            for key in beside.keys() & found.keys():
                self._reader.error("E112", found["risk"], f'"risk:" means nothing beside "{key}:": {beside[key]}')
            if verb is Verb.HALT:
                self._reader.error("E112", found["risk"], '"risk:" means nothing in a halt: nothing more can follow')
        return self._reader.value(found, "risk", "E221", tally) or 0

    def _pace(self, found: Mapping[str, Node], verb: Verb) -> Rate | None:
        """How often a throttle passes."""
        if verb is Verb.THROTTLE and "rate" not in found:
            self._reader.error("E104", found[verb], 'a throttle needs "rate:"', "rate: 6/minute")
        elif verb is not Verb.THROTTLE and "rate" in found:
            hint = "throttle: NAME allows at a rate; an item of rates: is for whatever an agent asks"
            self._reader.error("E112", found["rate"], '"rate:" means nothing in a rule that is no throttle', hint)
        return self._reader.value(found, "rate", "E209", rate)

    def _quiet(self, found: Mapping[str, Node], verb: Verb) -> bool:
        if "quiet" not in found:
            return False
        if not verb.refuses:
            message = f'"quiet:" means nothing in an {verb}: it is about what is refused'
            self._reader.error("E112", found["quiet"], message)
        return is_yes(self._reader, found["quiet"], "quiet")

    def _observed(self, found: Mapping[str, Node], verb: Verb) -> bool:
        if "observe" not in found:
            return False
        if verb is not Verb.DENY:
            self._reader.error("E112", found["observe"], f'"observe:" means nothing in an {verb}: it is about a deny')
        elif "expires" not in found:
            self._reader.error("E104", found["observe"], 'a deny on trial needs "expires:"', "expires: 2026-12-31")
        return is_yes(self._reader, found["observe"], "observe")

    def _read_clause(self, name: str, found: Mapping[str, Node], verb: Verb, where: Conditions) -> Conditions:
        """Keep what the rule says that has no effect yet; the conditions with the methods that such a key brings."""
        said = clause(self._reader, found, verb)
        if said != NO_CLAUSE:
            self.clauses[name] = said
        brought = OWN_METHODS.keys() & found.keys()
        if "methods" in found or verb is not Verb.ALLOW or not brought:
            return where
        return replace(where, methods=OWN_METHODS[min(brought)])

    def _refuse_terms(self, verb: Verb, found: Mapping[str, Node]) -> None:
        """What a rule that refuses says of sizes would never be asked."""
        for key in found.keys() & GRANT_TERMS:
            message = f'"{key}:" means nothing in a {verb}: it is about what passes'
            self._reader.error("E112", found[key], message, TERMS_ELSEWHERE[key])

    def _check_grant(self, node: Node, verb: Verb, found: Mapping[str, Node], where: Conditions) -> None:
        if verb is Verb.ALLOW and not _keys(node) & ({"methods", "llm"} | OWN_METHODS.keys()):
            hint = "reads, writes, any or a list such as [GET, POST]"
            self._reader.error("E104", node, 'an allow needs "methods:"', hint)
        check_upgrades(self._reader, found, where)
        if "to" in found and where.address is None:
            self._remark_ranges(found["to"], where)

    def _refuse_verbs(self, node: Node, found: Mapping[str, Node], verbs: list[str], *, already_said: bool) -> None:
        if verbs:
            message = f'a rule has one verb, and here are "{verbs[0]}:" and "{verbs[1]}:"'
            self._reader.error("E110", found[verbs[1]], message, "make two rules")
        elif not already_said:
            self._reader.error("E104", node, "a rule needs its verb and name", "allow: NAME or deny: NAME")

    def _rule_name(self, node: Node) -> str | None:
        name = self._reader.name(node, "a rule")
        if name is None:
            return None
        if names_an_item(name):
            self._reader.error("E106", node, f"{quote(name)} is how Governor names an item itself", "take another name")
        else:
            self._above.take(self._reader, node, "rule", name)
        return name

    def _remark_ranges(self, node: Node, where: Conditions) -> None:
        wide = [t for t in where.to or () if isinstance(t, AddressRange) and any(n.first != n.last for n in t.networks)]
        if wide:
            message = f"{wide[0].text} covers only requests whose host is an address in it"
            hint = f"for names that lead there: to: NAME with address: {wide[0].text}"
            self._reader.inform("I108", node, message, hint)

    def _why(self, found: Mapping[str, Node]) -> str | None:
        why = self._reader.text(found["why"], "why") if "why" in found else None
        if why is not None and len(why) > _LONGEST_REASON:
            self._reader.error("E102", found["why"], f"why has {len(why)} characters; {_LONGEST_REASON} are allowed")
        return why

    def nevers(self, node: Node | None, first_number: int) -> tuple[Rule, ...]:
        items = [] if node is None else self._reader.items(node, "never")
        before = self._above.nevers + 1
        nevers = [self._never(first_number + n, f"never-{before + n}", item) for n, item in enumerate(items)]
        return tuple(never for never in nevers if never is not None)

    def _never(self, number: int, name: str, node: Node) -> Rule | None:
        found = self._reader.mapping(node, NEVER)
        if found is None:
            return None
        if not found.keys() - {"why", "except", "quiet"}:
            message = "an item of never without conditions would refuse everything"
            self._reader.error("E104", node, message, "say to:, address:, methods: or another key")
        where, holes = self._conditions.conditions(found), self._conditions.holes(found)
        refuse_lengths(self._reader, found, where.llm, "an item of never")
        if self._reader.ahead:
            self._read_clause(name, found, Verb.NEVER, where)
        quiet = self._quiet(found, Verb.NEVER)
        return Rule(number, name, Verb.NEVER, where, holes, self._reader.at(node), why=self._why(found), quiet=quiet)

    def limits(self, node: Node | None, first_number: int) -> tuple[Rule, ...]:
        items = [] if node is None else self._reader.items(node, "limits")
        before = self._above.limits + 1
        limits = [self._limit(first_number + n, f"limits-{before + n}", item) for n, item in enumerate(items)]
        return tuple(limit for limit in limits if limit is not None)

    def _limit(self, number: int, name: str, node: Node) -> Rule | None:
        found = self._reader.mapping(node, LIMIT)
        if found is None:
            return None
        where, holes = self._conditions.conditions(found), self._conditions.holes(found)
        terms = limit_terms(self._reader, node, found, where.llm)
        return Rule(number, name, Verb.LIMIT, where, holes, self._reader.at(node), terms=terms)


def names_an_item(name: str) -> bool:
    """True for a name that Governor gives itself to an item without one."""
    return name.startswith(_OWN_NAMES) and name.rpartition("-")[2].isdecimal()


def _keys(node: Node) -> set[str]:
    """The keys that a mapping is written with, those that were refused among them."""
    return {key.text for key in node.parts[::2] if isinstance(key, Scalar)} if isinstance(node, Tree) else set()
