"""`cascade:` in sentences, and what of it another policy changes."""

from __future__ import annotations

import pytest

from kernel.analysis.difference import Relation, difference
from kernel.prose import in_words
from tests.addons.policies import compiled

HEAD = "agents: {coders: [claude-*], reviewers: [rev-1]}\n"
NEEDS = "depends: {coders: [reviewers]}"
HALT = "on-halt: {reasons: [OVERRISK], do: throttle}"


def policy(said: str, head: str = HEAD):
    return compiled(f"{head}cascade: {{{said}}}" if said else head).policy


def told(said: str) -> list[str]:
    return [each.text for paragraph in in_words(policy(said)) if paragraph.title == "When an agent is halted"
            for each in paragraph.sentences]


@pytest.mark.parametrize(("said", "sentences"), [
    (f"{NEEDS}, {HALT}",
     ["coders needs reviewers.",
      "When an agent is halted for OVERRISK, those that need it are slowed down, for 10 minutes."]),
    (("on-halt: {reasons: [OVERRISK, EXPLORATION_DRIFT], do: quarantine, hops: 2, for: 1h}, blast-radius: 25%, "
      "circuit-breaker: {halts: 3, within: 5m, do: observe}"),
     [("When an agent is halted for EXPLORATION_DRIFT or OVERRISK, those that need it, up to 2 steps away, are allowed "
       "to read only, for 1 hour."),
      "After 3 halts within 5 minutes in one group, the others of the group are written down, and go on.",
      ("Each process holds back so at most 25 % of the agents that asked it for something within the hour, and one "
       "always, at a time; the others are slowed down.")]),
    ("on-halt: {reasons: [OVERRISK], do: halt}, circuit-breaker: {halts: 1, within: 5m, do: throttle}",
     [("When an agent is halted for OVERRISK, those that need it are halted until an operator releases them."),
      "After 1 halt within 5 minutes in one group, the others of the group are slowed down, for 10 minutes.",
      ("Each process holds back so at most 10 % of the agents that asked it for something within the hour, and one "
       "always, at a time; the others are slowed down.")]),
    ("", []),
])
def test_what_a_halt_means_for_others_is_told(said, sentences):
    assert told(said) == sentences


OTHER_GROUP = HEAD.replace("rev-1", "rev-2")


@pytest.mark.parametrize(("old", "new", "relation"), [
    (f"{NEEDS}, {HALT}", f"{HALT}, {NEEDS}", Relation.EQUAL),
    ("", f"{NEEDS}, {HALT}", Relation.STRICTER),
    (f"{NEEDS}, {HALT}", "", Relation.LOOSER),
    (HALT, f"{HALT}, circuit-breaker: {{halts: 2, within: 1m, do: throttle}}", Relation.STRICTER),
    (f"{NEEDS}, {HALT}", f"{NEEDS}, {HALT.replace('throttle', 'quarantine')}", Relation.INCOMPARABLE),
])
def test_another_cascade_is_a_difference(old, new, relation):
    found = difference(policy(old), policy(new))

    assert found.relation is relation
    assert all("when an agent is halted" in change.message for change in found.changed)
    assert bool(found.changed) is (relation is not Relation.EQUAL)


def test_another_group_behind_the_same_words_is_a_difference():
    said = f"{NEEDS}, {HALT}"

    assert difference(policy(said), policy(said, OTHER_GROUP)).relation is Relation.INCOMPARABLE
