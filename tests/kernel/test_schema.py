"""The schema for editors: it knows every key of this version, takes what loads and refuses what cannot."""

from __future__ import annotations

import re
from typing import Any

import pytest

from addons.policy_files import shipped_policy
from addons.yaml_nodes import compose
from kernel.document import Mapping, Node, Scalar, Sequence
from kernel.schema import schema
from tests.addons.policies import findings

SCHEMA = schema()
FOLDER = shipped_policy("default").parent
SHIPPED = sorted(path for path in FOLDER.glob("*.yaml") if not path.name.endswith(".cases.yaml"))
EXAMPLES = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)


def plain(node: Node) -> Any:
    match node:
        case Scalar():
            return node.text
        case Sequence():
            return [plain(item) for item in node.items]
        case Mapping():
            return {plain(key): plain(value) for key, value in zip(node.parts[::2], node.parts[1::2], strict=True)}


TYPES = {"string": str, "number": (int, float), "boolean": bool, "object": dict, "array": list}


def problems(value: Any, wanted: dict[str, Any], where: str = "") -> list[str]:
    """What draft 2020-12 says is wrong with a value, in the words of the schema that are used here."""
    known = {"$ref", "$schema", "$defs", "title", "description", "type", "enum", "const", "pattern", "minLength",
             "minItems", "items", "properties", "additionalProperties", "required", "minProperties", "maxProperties",
             "anyOf", "oneOf", "not"}
    assert wanted.keys() <= known
    found = []
    if "$ref" in wanted:
        found += problems(value, SCHEMA["$defs"][wanted["$ref"].removeprefix("#/$defs/")], where)
    types = wanted.get("type", [])
    if types and not any(isinstance(value, TYPES[t]) for t in ([types] if isinstance(types, str) else types)):
        found.append(f"{where}: type")
    if ("enum" in wanted and value not in wanted["enum"]) or ("const" in wanted and value != wanted["const"]):
        found.append(f"{where}: {value!r} is not one of those")
    if isinstance(value, str):
        found += [f"{where}: pattern"] if not re.search(wanted.get("pattern", ""), value) else []
        found += [f"{where}: too short"] if len(value) < wanted.get("minLength", 0) else []
    if isinstance(value, list):
        found += [f"{where}: too few"] if len(value) < wanted.get("minItems", 0) else []
        found += [each for item in value for each in problems(item, wanted.get("items", {}), f"{where}[]")]
    if isinstance(value, dict):
        found += in_object(value, wanted, where)
    if "anyOf" in wanted and all(problems(value, each, where) for each in wanted["anyOf"]):
        found.append(f"{where}: none fits")
    if "oneOf" in wanted and sum(not problems(value, each, where) for each in wanted["oneOf"]) != 1:
        found.append(f"{where}: not one fits")
    if "not" in wanted and not problems(value, wanted["not"], where):
        found.append(f"{where}: fits what it must not")
    return found


def in_object(value: dict[str, Any], wanted: dict[str, Any], where: str) -> list[str]:
    found = [f"{where}: {name} is missing" for name in wanted.get("required", []) if name not in value]
    if not wanted.get("minProperties", 0) <= len(value) <= wanted.get("maxProperties", len(value)):
        found.append(f"{where}: number of keys")
    for name, inner in value.items():
        other = wanted.get("additionalProperties", {})
        if name in wanted.get("properties", {}):
            found += problems(inner, wanted["properties"][name], f"{where}.{name}")
        elif other is False:
            found.append(f"{where}: unknown key {name}")
        else:
            found += problems(inner, other, f"{where}.{name}")
    return found


def judged(text: str) -> list[str]:
    return problems(plain(compose(text.encode(), "p.yaml").root), SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
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
    "version: 1\nassert: [{allowed: {from: a, to: 'https://x.com/'}}]",
    "version: 1\nassert: [{allowed: {from: [a], to: 'https://x.com/', method: GET}}]",
    "version: 1\nidentity: {anonymous: yes}",
])
def test_what_cannot_load_does_not_fit(wrong):
    assert judged(wrong)
    assert any(finding.severity == "error" for finding in findings(wrong))


def test_a_policy_says_its_version():
    assert judged("rules: []") == [": version is missing"]


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
