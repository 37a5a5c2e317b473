"""Cases: requests with the verdict that a policy must give them, read from NAME.cases.yaml and tried."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from addons.policy_files import load_policy, read
from addons.request_fields import readable
from addons.yaml_nodes import compose
from kernel import times
from kernel.ahead.outlook import as_if
from kernel.document import Keys, Node, Reader, Scalar, quote
from kernel.errors import NonCanonical, PolicyError
from kernel.facts import Address, RequestFacts
from kernel.fields import Headers
from kernel.match import Index
from kernel.question import answer, facts_of
from kernel.verdict import Action, Code
from kernel.vocabulary import POLICY

_A_POLICY = "this is a policy: governor policy check reads it, and a cases file names it with policy: FILE"
_FILE = Keys(
    "a cases file",
    now=frozenset({"policy", "cases"}),
    required=("policy", "cases"),
    elsewhere=dict.fromkeys(POLICY.now | POLICY.ahead, _A_POLICY),
)
_CASE = Keys(
    "a case",
    now=frozenset({
        "name", "agent", "method", "url", "address", "at", "headers", "content-type", "body", "expect", "rule", "code",
    }),
    ahead=frozenset({"holds"}),
    required=("name", "method", "url", "expect"),
)
_LATER_ANSWERS = {Action.ASK.value}
_ANSWERS = {action.value for action in Action} - _LATER_ANSWERS
_ONE_OF = "allow, throttle, deny or halt"


@dataclass(frozen=True, slots=True)
class Case:
    """One request, asked as `agent`, and what must come of it; None stands for "whatever".

    `holds` are the rules whose conditions without effect yet the request is taken to fulfil.
    """

    name: str
    facts: RequestFacts
    address: Address | None
    expect: str
    rule: str | None
    code: str | None
    holds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a case."""

    case: Case
    verdict: str
    rule: str | None
    code: str
    held: tuple[str, ...]

    @property
    def ok(self) -> bool:
        wanted = self.case
        return (self.verdict == wanted.expect and wanted.rule in (None, self.rule) and wanted.code in (None, self.code))

    @property
    def wanted(self) -> str:
        """What the case asks for, in words."""
        return _in_words(self.case.expect, self.case.rule, self.case.code)

    @property
    def got(self) -> str:
        """What came of it, in the same words."""
        return _in_words(self.verdict, self.rule, self.code)


def _in_words(verdict: str, rule: str | None, code: str | None) -> str:
    return ", ".join(filter(None, [verdict, rule and f"rule {rule}", code]))


@dataclass(frozen=True, slots=True)
class Trial:
    """A cases file after its cases were tried. `uncovered` are the rules and limits that held in none of them."""

    outcomes: tuple[Outcome, ...]
    uncovered: tuple[str, ...]


def tried(path: Path, *, ahead: bool = False) -> Trial:
    """Try the cases of a file. Raises `PolicyMissing`, or `PolicyError` for the cases file or the policy it names.

    With `ahead` the policy may hold keys without effect yet; a case says with `holds` which of them it meets.
    """
    reader, policies, cases = _read(path, ahead=ahead)
    if reader.findings:
        raise PolicyError(reader.findings)
    policy = load_policy([path.parent / name for name in policies], ahead=ahead).policy
    indexes = {holds: Index(as_if(policy, holds)) for holds in {case.holds for case in cases}}
    outcomes = tuple(_outcome(indexes[case.holds], case) for case in cases)
    held = {name for outcome in outcomes for name in outcome.held}
    names = [rule.name for rule in policy.items]
    return Trial(outcomes, tuple(name for name in names if name not in held))


def _outcome(index: Index, case: Case) -> Outcome:
    judgement = answer(index, case.facts, case.address)
    verdict = judgement.verdict
    return Outcome(case, verdict.action.value, verdict.rule, verdict.code.value, judgement.groups)


def _read(path: Path, *, ahead: bool) -> tuple[Reader, list[str], list[Case]]:
    document = compose(read(path), str(path))
    reader = Reader(document.file, ahead=ahead)
    found = reader.mapping(document.root, _FILE) or {}
    policies = [word.text for word in reader.words(found["policy"], "policy")] if "policy" in found else []
    items: Sequence[Node] = reader.items(found["cases"], "cases") if "cases" in found else ()
    if "cases" in found and not items:
        reader.error("E104", found["cases"], "a cases file without cases proves nothing")
    cases = [_case(reader, item) for item in items]
    return reader, policies, [case for case in cases if case is not None]


def _case(reader: Reader, node: Node) -> Case | None:
    found = reader.mapping(node, _CASE)
    if found is None:
        return None
    holds = frozenset(word.text for word in reader.words(found.pop("holds"), "holds")) if "holds" in found else None
    texts = {key: reader.text(value, key) for key, value in found.items() if key != "headers"}
    _check_expect(reader, found, texts.get("expect"))
    if "code" in found and texts["code"] not in {code.value for code in Code}:
        reader.error("E102", found["code"], f"{quote(texts['code'] or '')} is no code of a verdict")
    facts = _facts(reader, found, texts)
    address = _address(reader, found["address"]) if "address" in found else None
    name, expect = texts.get("name"), texts.get("expect")
    if facts is None or name is None or expect is None:
        return None
    return Case(name, facts, address, expect, texts.get("rule"), texts.get("code"), holds or frozenset())


def _check_expect(reader: Reader, found: dict[str, Node], expect: str | None) -> None:
    if expect in _LATER_ANSWERS and not reader.ahead:
        reader.error("E180", found["expect"], f"this version never answers {expect}", _ONE_OF)
    elif expect is not None and expect not in _ANSWERS | _LATER_ANSWERS:
        reader.error("E102", found["expect"], f"{quote(expect)} is no verdict", _ONE_OF)


def _facts(reader: Reader, found: dict[str, Node], texts: dict[str, str | None]) -> RequestFacts | None:
    method, url = texts.get("method"), texts.get("url")
    if method is None or url is None:
        return None
    headers = _headers(reader, found, texts)
    at, body = found.get("at"), (texts.get("body") or "").encode()
    moment = reader.parsed("E212", at, times.moment) if isinstance(at, Scalar) and at.text else None
    try:
        return facts_of(texts.get("agent") or "local", method, url, len(body), headers, readable(body, headers),
                        at=int(time.time()) if moment is None else moment)
    except NonCanonical as refused:
        reader.error("P802", found["url"], f"no request can go to {quote(url)}: {refused.problem}")
        return None


def _headers(reader: Reader, found: dict[str, Node], texts: dict[str, str | None]) -> Headers:
    said = reader.entries(found["headers"], "headers") if "headers" in found else []
    named = [(name.text, reader.text(value, f"header {quote(name.text)}") or "") for name, value in said]
    kind = texts.get("content-type")
    return tuple((name.lower().encode(), value.encode()) for name, value in
                 (*named, *([("content-type", kind)] if kind else [])))


def _address(reader: Reader, node: Node) -> Address | None:
    text = reader.text(node, "address")
    try:
        return None if text is None else ip_address(text)
    except ValueError:
        reader.error("E202", node, f"{quote(text or '')} is not one address", "write one, such as 10.1.2.3")
        return None
