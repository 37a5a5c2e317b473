"""Every policy that comes with Governor loads without a finding and answers as its cases say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from addons.cases import tried
from addons.policy_files import llm_hosts, load_policy, shipped_policy
from kernel.vocabulary import ASSERT, ASSERTED, IDENTITY, LIMIT, NEVER, POLICY, RULE, WEBSOCKET
from tests.addons.policies import compiled

FOLDER = shipped_policy("default").parent
POLICIES = sorted(path for path in FOLDER.glob("*.yaml") if not path.name.endswith(".cases.yaml"))


def _named(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", POLICIES, ids=_named)
def test_a_shipped_policy_loads_without_a_finding(path):
    assert load_policy([path]).findings == ()


@pytest.mark.parametrize("path", POLICIES, ids=_named)
def test_a_shipped_policy_answers_as_its_cases_say_and_they_meet_every_rule(path):
    trial = tried(path.with_suffix(".cases.yaml"))

    assert [f"{each.case.name}: {each.verdict} {each.code}" for each in trial.outcomes if not each.ok] == []
    assert trial.uncovered == ()


def test_the_shipped_policies_are_the_ones_that_are_spoken_of():
    assert {path.stem for path in POLICIES} >= {"default", "demo"}


EXAMPLES = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_page_on_policies_loads_and_only_a_trial_is_told(example):
    on_trial = ["W307"] if "mode: observe" in example else []
    assert [finding.code for finding in compiled(example).findings] == on_trial


def test_the_page_on_policies_shows_every_key_of_this_version():
    whole = EXAMPLES[0]

    for keys in (POLICY, RULE, NEVER, LIMIT, WEBSOCKET, ASSERT, ASSERTED, IDENTITY):
        assert {key for key in keys.now if f"{key}:" not in whole} == set()


def test_every_model_host_of_the_default_policy_is_treated_as_one():
    policy = load_policy([shipped_policy("default")]).policy
    (rule,) = (rule for rule in policy.rules if rule.name == "ask-models")

    assert {pattern.name for pattern in rule.where.to or ()} <= set(llm_hosts())
