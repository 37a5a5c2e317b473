"""Builders for tests that write policies: the text is the test's, the frame is not."""

from __future__ import annotations

from textwrap import dedent

from addons.time_zones import ZONES
from addons.yaml_nodes import compose
from kernel.address import named_ranges
from kernel.compiler import Compiled, compile_policy
from kernel.errors import PolicyError
from kernel.findings import Finding
from kernel.llm_terms import Call
from kernel.pattern import url_pattern

# What also: housekeeping means in these tests.
CALLS = tuple(Call(method, url_pattern(f"https://models.example{path}", {})) for method, path in (
    ("GET", "/v1/models"), ("GET", "/v1/models/*"), ("POST", "/v1/messages/count_tokens")))
RANGES = named_ranges(["169.254.169.254", "fd00:ec2::254"])


def compiled(
    text: str, known: frozenset[str] = frozenset(), now: int = 0, *, ahead: bool = False
) -> Compiled:
    """The policy in `text`, called p.yaml; `version: 1` is put before it where it has none."""
    text = dedent(text)
    whole = text if text.lstrip().startswith("version") else f"version: 1\n{text}"
    return compile_policy([compose(whole.encode(), "p.yaml")], RANGES, "digest", known, ZONES, now, ahead=ahead,
                          calls=CALLS)


def findings(text: str, known: frozenset[str] = frozenset(), *, ahead: bool = False) -> tuple[Finding, ...]:
    """Everything that is found in the policy, whether it loads or not."""
    try:
        return compiled(text, known, ahead=ahead).findings
    except PolicyError as refused:
        return refused.findings


def codes(text: str, known: frozenset[str] = frozenset()) -> list[str]:
    return [finding.code for finding in findings(text, known)]
