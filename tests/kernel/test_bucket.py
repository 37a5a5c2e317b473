"""What is filed is found again by every request that it matches."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.bucket import agent_feature, bucket, path_feature
from kernel.normal import path
from kernel.pattern import agent_matches, agent_pattern, path_glob
from tests.conftest import scaled
from tests.kernel.reference_matcher import glob_matches


@dataclass(frozen=True)
class Filed:
    agents: tuple
    globs: tuple

    def features(self):
        agents = () if not self.agents else (agent_feature(self.agents),)
        return (*agents, path_feature(self.globs))

    def matches(self, agent, segments):
        covered = not self.agents or any(agent_matches(each, agent) for each in self.agents)
        return covered and any(glob_matches(each.segments, segments) for each in self.globs)


WORDS = st.sampled_from(["a", "b", "c", "ab", "abc", "*", "**", "a*", "*c", "a*c", "**"])
GLOBS = st.lists(WORDS, min_size=1, max_size=4).map(lambda words: path_glob("/" + "/".join(words)))
AGENTS = st.lists(st.sampled_from(["x-1", "x-2", "x-*", "*-1", "*"]).map(agent_pattern), max_size=2).map(tuple)
ENTRIES = st.builds(Filed, AGENTS, st.lists(GLOBS, min_size=1, max_size=2).map(tuple))
PATHS = st.lists(st.sampled_from(["a", "b", "c", "ab", "abc", "aac"]), max_size=5).map(
    lambda words: path("/" + "/".join(words))
)


@settings(max_examples=scaled(200))
@given(st.lists(ENTRIES, max_size=30), st.lists(st.tuples(st.sampled_from(["x-1", "x-2", "y-1"]), PATHS), max_size=8))
def test_a_bucket_loses_no_entry_that_matches(entries, asked):
    filed = bucket(entries)

    assert set(filed.everything()) == set(entries)
    for agent, where in asked:
        found: list[Filed] = []
        filed.gather(agent, where.segments, found)
        assert set(found) >= {entry for entry in entries if entry.matches(agent, where.segments)}


def test_a_bucket_of_many_finds_few():
    entries = [Filed((), (path_glob(f"/repos/acme/p{number}/**"),)) for number in range(1000)]
    found: list[Filed] = []
    bucket(entries).gather("x", path("/repos/acme/p7/issues").segments, found)

    assert found == [entries[7]]
