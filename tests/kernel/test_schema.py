"""The schema for editors: it knows every key of this version, takes what loads and refuses what cannot."""

from __future__ import annotations

import re
from random import Random
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from addons.policy_files import shipped_policy
from addons.yaml_nodes import compose
from kernel.accounts import AMOUNTS
from kernel.ahead.clauses import GRAPHQL
from kernel.dns_section import DNS
from kernel.document import Mapping, Node, Scalar, Sequence
from kernel.llm_terms import LLM
from kernel.price_lists import PRICE
from kernel.schema import schema
from kernel.vocabulary import POLICY, RULE
from tests.addons.policies import findings
from tests.conftest import scaled

SCHEMA = schema()
VALIDATOR = Draft202012Validator(SCHEMA)
FOLDER = shipped_policy("default").parent
SHIPPED = sorted(path for path in FOLDER.rglob("*.yaml")
                 if not path.name.endswith(".cases.yaml") and path.parent.name != "data")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)


def plain(node: Node) -> Any:
    match node:
        case Scalar():
            return node.text
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {plain(key): plain(value) for key, value in zip(node.parts[::2], node.parts[1::2], strict=True)}


def problems(value: Any, wanted: dict[str, Any]) -> list[str]:
    """What draft 2020-12 says is wrong with a value."""
    return [error.message for error in VALIDATOR.evolve(schema=wanted).iter_errors(value)]


def judged(text: str) -> list[str]:
    return problems(plain(compose(text.encode(), "p.yaml").root), SCHEMA)


def test_it_is_a_schema():
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_shipped_policy_fits(path):
    assert judged(path.read_text()) == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_page_on_policies_fits(example):
    assert judged(example if example.startswith("version") else f"version: 1\n{example}") == []


@pytest.mark.parametrize("wrong", [
    "version: 2",
    "version: 1\nrule: []",
    "version: 1\nrules: {}",
    "version: 1\ncontact: []",
    "version: 1\nrules: [{allow: x, to: x.com}]",
    "version: 1\nrules: [{to: x.com, methods: any}]",
    "version: 1\nrules: [{allow: x, deny: y, methods: any}]",
    "version: 1\nrules: [{allow: x, methods: get}]",
    "version: 1\nrules: [{allow: x, methods: [any, GET]}]",
    "version: 1\nrules: [{allow: x, methods: []}]",
    "version: 1\nrules: [{allow: x, metods: any}]",
    "version: 1\nrules: [{allow: x, methods: any, schemes: ftp}]",
    "version: 1\nrules: [{allow: x, methods: any, ports: https}]",
    "version: 1\nrules: [{allow: x, methods: any, paths: a}]",
    "version: 1\nrules: [{allow: x, methods: any, paths: /a?b}]",
    "version: 1\nrules: [{allow: x, methods: any, max-request: 1 MB}]",
    "version: 1\nrules: [{allow: x, methods: any, stream-request: no}]",
    "version: 1\nrules: [{allow: x, methods: any, in-flight: 4}]",
    "version: 1\nrules: [{allow: x, methods: any, websocket: {max-rate: 5/week}}]",
    "version: 1\nrules: [{allow: x, methods: any, json: amount}]",
    "version: 1\nrules: [{deny: x, max-request: 1}]",
    "version: 1\nrules: [{deny: x, except: {}}]",
    "version: 1\nrules: [{deny: x y}]",
    "version: 1\nnever: [{}]",
    "version: 1\nlimits: [{from: x, max-url: 1}]",
    "version: 1\nassert: [{allowed: {from: a, method: GET}}]",
    "version: 1\nassert: [{allowed: {from: [a], to: 'https://x.com/', method: GET}}]",
    "version: 1\nidentity: {anonymous: yes}",
    "version: 1\nrules: [{allow: r, to: x.example, llm: {model: m}}]",
    "version: 1\nrules: [{allow: r, to: x.example, llm: {max-output-tokens: 0}}]",
    "version: 1\nprices: [{models: m}]",
    "version: 1\nprices: {openai: [{models: m, input: 1, output: 1, context: 1k}]}",
])
def test_what_cannot_load_does_not_fit(wrong):
    assert judged(wrong)
    assert any(finding.severity == "error" for finding in findings(wrong))


def test_a_policy_says_its_version():
    assert judged("rules: []") == ["'version' is a required property"]


def test_every_key_says_what_it_is_for():
    def properties(node: Any):
        if isinstance(node, dict):
            yield from node.get("properties", {}).values()
            for inner in node.values():
                yield from properties(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from properties(inner)

    assert all(each["description"].endswith((".", "}")) for each in properties(SCHEMA))


@pytest.mark.parametrize("read", [1, 443, True, 1.5])
def test_what_an_editor_reads_as_a_number_or_truth_value_is_a_value(read):
    assert problems(read, SCHEMA["$defs"]["rule"]["properties"]["why"]) == []


AHEAD_RIGHT = [
    "rules: [{ask: r, to: x.example, methods: [POST], approvers: [ana, finance-oncall], hold: 20s, valid: 15m}]",
    "rules: [{throttle: r, to: x.example, rate: 6/minute, max-request: 0}]",
    "rules: [{halt: r, to: x.example, quiet: yes}]",
    "rules: [{allow: r, to: x.example, git: {fetch: ['acme/**'], push: acme/web, refs: 'refs/heads/*', force: no}}]",
    "rules: [{allow: r, to: x.example, mcp: {tools: [search_*], where: {amount: '<= 200', currency: [eur, usd]}}}]",
    "rules: [{allow: r, to: x.example, tunnel: opaque, ports: 5432}]",
    "rules: [{allow: r, to: x.example, methods: any, graphql: {operations: query, fields: [viewer]}}]",
    "rules: [{allow: r, to: x.example, methods: any, credentials: org, redact: [email], add-headers: {x-a: b}}]",
    "rules: [{deny: r, contains: [secrets, cloud-keys], risk: 20}]",
    "never: [{contains: secrets}]",
    "budgets: [{budget: b, for: c-*, each: {usd: 0.25, bytes: 10GB}, every: day, when-used: {100%: deny}}]",
    "budgets: [{budget: b, for: c-*, together: {tokens: 4M, seconds: 8h}, every: hour, timezone: Europe/Berlin}]",
    "budgets: [{budget: b, each: {usd: 1}, every: week, when-used: {80%: tell, 95%: throttle 6/minute, 99%: deny}}]",
    "budgets: [{budget: b, together: {requests: 2k, risk: 100, new-hosts: 20}, every: session}]",
    "rates: [{for: c-*, each: 60/minute, together: 600/hour, burst: 10}]",
    "profile: balanced",
    "counters: {persistence: {limit: 20, then: throttle, within: 1h}, steps: {limit: 2G, then: halt}}",
    "agents: {a: a-1, b: b-1}\ncascade: {depends: {a: b}, on-halt: {reasons: OVERRISK, do: ask, hops: 2, for: 10m}}",
    "cascade: {blast-radius: 10%, circuit-breaker: {halts: 3, within: 5m, do: ask}}",
    "dns: {answer: allowed-names, types: [A, AAAA], max-labels: 6, max-name: 100}",
]
AHEAD_WRONG = [
    "rules: [{throttle: r, to: x.example}]",
    "rules: [{throttle: r, to: x.example, rate: 6/week}]",
    "rules: [{ask: r, to: x.example, hold: 20}]",
    "rules: [{ask: r, to: x.example, rate: 6/minute}]",
    "rules: [{ask: r, to: x.example, quiet: yes}]",
    "rules: [{deny: r, approvers: ana}]",
    "rules: [{deny: r, redact: email}]",
    "rules: [{halt: r, max-request: 1KB}]",
    "rules: [{halt: r, risk: 5}]",
    "rules: [{deny: r, rate: 6/minute}]",
    "counters: {steps: {limit: 5, then: tell, within: 1h}}",
    "budgets: [{budget: a b, each: {requests: 4}, every: day}]",
    "rules: [{allow: r, to: x.example, methods: any, contains: secrets}]",
    "rules: [{allow: r, to: x.example, methods: any, redact: names}]",
    "rules: [{allow: r, to: x.example, methods: any, risk: 0}]",
    "rules: [{allow: r, to: x.example, methods: any, risk: 1.5}]",
    "rules: [{allow: r, to: x.example, methods: any, tunnel: yes}]",
    "rules: [{allow: r, to: x.example, methods: any, graphql: {operations: read}}]",
    "rules: [{allow: r, to: x.example, git: {refs: main}}]",
    "rules: [{allow: r, to: x.example, git: {fetch: a, force: no}}]",
    "rules: [{allow: r, to: x.example, git: {push: a, force: maybe}}]",
    "never: [{to: x.example, credentials: org}]",
    "budgets: {}",
    "budgets: [{budget: b, every: day}]",
    "budgets: [{budget: b, each: {}, every: day}]",
    "budgets: [{budget: b, each: {usd: $5}, every: day}]",
    "budgets: [{budget: b, each: {usd: 0.0000001}, every: day}]",
    "budgets: [{budget: b, each: {usd: 0.00}, every: day}]",
    "budgets: [{budget: b, each: {bytes: 0}, every: day}]",
    "budgets: [{budget: b, each: {tokens: 4m}, every: day}]",
    "budgets: [{budget: b, each: {euro: 4}, every: day}]",
    "budgets: [{budget: b, each: {usd: 4}, every: month}]",
    "budgets: [{budget: b, each: {usd: 4}}]",
    "budgets: [{budget: b, each: {usd: 4}, every: day, when-used: {80: tell}}]",
    "budgets: [{budget: b, each: {usd: 4}, every: day, when-used: {0%: tell}}]",
    "budgets: [{budget: b, each: {usd: 4}, every: day, when-used: {80%: throttle}}]",
    "rates: [{burst: 10}]",
    "rates: [{each: 60}]",
    "rates: [{each: 60/minute, burst: 0}]",
    "profile: brave",
    "counters: {persistence: 20}",
    "counters: {persistence: {limit: 20}}",
    "counters: {effort: {limit: 20, then: tell}}",
    "cascade: {on-halt: {reasons: EXHAUSTION, do: halt}}",
    "cascade: {on-halt: {reasons: OVERRISK, do: deny}}",
    "cascade: {on-halt: {reasons: OVERRISK, do: halt, hops: 17}}",
    "cascade: {blast-radius: 101%}",
    "cascade: {circuit-breaker: {halts: 3, do: ask}}",
    "dns: {types: [B]}",
    "dns: {max-labels: -1}",
]


@pytest.mark.parametrize("text", AHEAD_RIGHT)
def test_a_key_without_effect_yet_fits_as_it_is_read_ahead(text):
    assert judged(f"version: 1\n{text}") == []
    assert findings(text, ahead=True) == ()


@pytest.mark.parametrize("text", AHEAD_WRONG)
def test_a_key_without_effect_yet_that_cannot_be_read_ahead_does_not_fit(text):
    assert judged(f"version: 1\n{text}")
    assert any(finding.severity == "error" for finding in findings(text, ahead=True))


VALUES = [
    "0", "1", "007", "20", "1.5", "1,000", "1e3", "5 MB", "5MB", "5MiB", "0KB", "10TB", "4M", "4m", "2k", "$0.10",
    "0.10", "0.0000001", "10s", "10", "0s", "1h30m", "10/minute", "10 / minute", "10/min", "0/day", "80%", "0%",
    "101%", "yes", "no", "true", "any", "reads", "GET", "get", "https", "x.example", "a b", "2030-01-01", "UTC",
    "mon-fri", "08:00-18:00", "pass", "tell", "throttle", "throttle 6/minute", "halt", "ask", "day", "session",
    "opaque", "secrets", "query", "housekeeping", "OVERRISK", "balanced", "A", "allowed-names", "team", "443",
    "8000-9000", "/a/**", "refs/heads/*", "<= 5",
]
PLACES = [
    *(f"rules: [{{allow: r, to: x.example, methods: any, {key}: VALUE}}]" for key in sorted(RULE.now | RULE.ahead)
      if key not in {"allow", "to", "methods"}),
    *(f"rules: [{{ask: r, to: x.example, {key}: VALUE}}]" for key in ("approvers", "hold", "valid", "methods")),
    *(f"rules: [{{deny: r, {key}: VALUE}}]" for key in ("contains", "risk", "to", "methods", "quiet", "expires")),
    "rules: [{throttle: r, to: x.example, rate: VALUE}]",
    *(f"limits: [{{{key}: VALUE}}]" for key in ("max-request", "max-response", "max-url", "in-flight")),
    *(f"budgets: [{{budget: b, every: day, each: {{{unit}: VALUE}}, when-used: {{100%: deny}}}}]"
      for unit in sorted(AMOUNTS.now | AMOUNTS.ahead)),
    "budgets: [{budget: b, each: {requests: 1}, every: VALUE}]",
    "budgets: [{budget: b, each: {requests: 1}, every: day, when-used: {80%: VALUE}}]",
    "budgets: [{budget: b, each: {requests: 1}, every: day, when-used: {VALUE: tell}}]",
    *(f"rates: [{{each: 1/day, {key}: VALUE}}]" for key in ("together", "burst")),
    *("counters: {stagnation: {limit: 1, then: tell, within: 1h}}".replace(f"{key}: {old}", f"{key}: VALUE")
      for key, old in (("limit", "1"), ("then", "tell"), ("within", "1h"))),
    *(f"cascade: {{on-halt: {{reasons: OVERRISK, do: ask, {key}: VALUE}}}}" for key in ("hops", "for")),
    "cascade: {blast-radius: VALUE}", "cascade: {on-halt: {reasons: VALUE, do: VALUE}}",
    *("cascade: {circuit-breaker: {halts: 1, within: 1h, do: ask}}".replace(f"{key}: {old}", f"{key}: VALUE")
      for key, old in (("halts", "1"), ("within", "1h"), ("do", "ask"))),
    *(f"dns: {{{key}: VALUE}}" for key in sorted(DNS.now)),
    *(f"rules: [{{allow: r, to: x.example, methods: any, llm: {{{key}: VALUE}}}}]" for key in sorted(LLM.now)),
    *("prices: {openai: [{models: m, input: 1, cached: 1, written: 1, output: 1, context: 1k, longest-output: 1k}]}"
      .replace(f"{key}: {'m' if key == 'models' else '1'}", f"{key}: VALUE") for key in sorted(PRICE.now)),
    *(f"rules: [{{allow: r, to: x.example, git: {{push: a, {key}: VALUE}}}}]"
      for key in ("fetch", "refs", "force", "delete")),
    *(f"rules: [{{allow: r, to: x.example, methods: any, graphql: {{{key}: VALUE}}}}]" for key in sorted(GRAPHQL.now)),
    *(f"{key}: VALUE" for key in sorted(POLICY.now | POLICY.ahead) if key != "version"),
]


@pytest.mark.parametrize("place", PLACES)
def test_whatever_loads_fits(place):
    for value in Random(place).sample(VALUES, min(len(VALUES), scaled(10))):
        text = place.replace("VALUE", value)
        if not any(finding.severity == "error" for finding in findings(text, ahead=True)):
            assert judged(f"version: 1\n{text}") == [], text
