"""Budgets, rates and counters in sentences."""

from __future__ import annotations

import pytest

from kernel.budget import Unit
from kernel.profiles import PROFILES
from kernel.prose import in_words
from kernel.words import amount_in_words, duration_in_words
from tests.addons.policies import compiled

HEAD = "version: 1\nagents: {coders: [claude-*], reviewers: [rev-1]}\n"
GENERAL = "In general"


def told(text: str) -> dict[str, list[str]]:
    return {each.title: [said.text for said in each.sentences] for each in in_words(compiled(f"{HEAD}{text}").policy)}


@pytest.mark.parametrize(("text", "title", "sentences"), [
    (("budgets: [{budget: b, for: coders, each: {requests: 2k, new-hosts: 1}, together: {bytes: 10GB}, every: day, "
      "when-used: {80%: tell, 95%: throttle 6/minute, 99%: deny, 100%: halt}}]"), "What agents may use up",
     [("Each of coders may use 2,000 requests and 1 new host in each day by the clocks of UTC. Together coders may use "
       "10 GB in each day by the clocks of UTC. At 80 % agents are told what is left. At 95 % requests are slowed down "
       "to 6 a minute. At 99 % requests are refused. At 100 % the agent that asks is halted until an operator releases "
       "it.")]),
    ("budgets: [{budget: b, each: {seconds: 8h}, every: session}]", "What agents may use up",
     ["Every agent may use 8 hours in a session. When it is used up requests are refused."]),
    ("budgets: [{budget: b, together: {seconds: 90m}, every: hour}]", "What agents may use up",
     [("All agents together may use 90 minutes in each hour by the clocks of UTC. What all use together is the "
       "system's account, and governor status shows what is left of it. When it is used up requests are "
       "refused.")]),
    ("rates: [{for: coders, each: 60/minute, together: 600/hour, burst: 10}]", "How often agents may ask",
     ["Each of coders may ask 60 a minute and together coders may ask 600 an hour, 10 at once."]),
    ("counters: {persistence: {limit: 20, then: throttle}, steps: {limit: 1k, then: tell}}",
     "What is counted of every agent",
     ["An agent that is refused the same request 20 times within 1 hour is slowed down to 6 a minute.",
      "An agent that makes 1,000 requests in a session is told so, and goes on."]),
    ("rules: [{throttle: r, to: x.example, rate: 6/minute}]", "Every agent",
     ["Allowed at a slower pace: any request to x.example. At most 6 a minute."]),
    ("rules: [{halt: r, to: x.example}]", "Every agent",
     ["This ends an agent until an operator releases it: any request to x.example."]),
    ("rules: [{deny: r, to: x.example, risk: 1}]", "Every agent",
     ["Refused: any request to x.example. Each costs its agent 1 point of risk."]),
])
def test_what_agents_may_use_up_is_told(text, title, sentences):
    assert told(text)[title] == sentences


def test_a_profile_is_told_with_its_numbers_and_what_the_policy_says_itself():
    first, *others = told("profile: conservative\ncounters: {risk: {limit: 7, then: deny}}")[
        "What is counted of every agent"]

    assert first == "What no counter of the policy says is as in the profile conservative."
    assert len(others) == len(PROFILES["conservative"])
    assert "An agent that comes to 7 points of risk in a session is refused what goes beyond that." in others
    assert ("An agent that is refused the same request 10 times within 10 minutes is refused what goes beyond that "
            "(profile conservative).") in others


def test_a_policy_that_says_nothing_of_the_kind_is_told_as_ever():
    assert list(told("rules: [{allow: r, to: x.example, methods: any}]")) == [GENERAL, "Every agent"]


def test_amounts_and_times_are_told_in_units_that_people_read():
    assert [duration_in_words(seconds) for seconds in (1, 60, 90, 7200, 86400 * 7)] == [
        "1 second", "1 minute", "90 seconds", "2 hours", "7 days"]
    assert [amount_in_words(unit, 1) for unit in Unit] == [
        "0.000001 USD", "1 token", "1 request", "1 byte", "1 second", "1 point of risk", "1 new host"]
