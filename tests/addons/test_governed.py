"""What a process knows of the policy in force, beyond the policy itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from addons.governed import prepare


@pytest.mark.parametrize(("item", "constrains"), [
    ("rules: [{allow: x, to: example.org, methods: any}]", False),
    ("rules: [{allow: x, to: example.org, methods: reads}]", True),
    ("never: [{to: example.org, paths: [/x]}]", True),
    ("rules: [{allow: x, to: example.org, llm: {}}]", True),
    ("limits: [{to: example.org, max-request: 1KB}]", False),
    ("limits: [{methods: writes, max-request: 1KB}]", True),
    ("limits: [{max-request: 1KB, except: {paths: [/upload]}}]", True),
])
def test_a_header_that_overrides_method_or_path_matters_where_a_rule_or_limit_looks_at_them(
    tmp_path: Path, item: str, constrains: bool
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(f"version: 1\n{item}\n")

    assert prepare([file], frozenset()).constrains_method_or_path is constrains


def test_the_hosts_of_rules_for_models_are_treated_as_those_of_the_table(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("version: 1\nrules:\n  - {allow: ours, to: .models.example.org, llm: {}}\n"
                    "  - {allow: other, to: other.example.org, methods: any}\n")

    hosts = prepare([file], frozenset()).llm_hosts

    assert [name in hosts for name in ("api.openai.com", "a.models.example.org", "other.example.org")] == [
        True, True, False]
