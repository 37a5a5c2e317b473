"""What was told of names: known for a while, within bounds, and nobody pushes out what others were told."""

from __future__ import annotations

from ipaddress import ip_address

from addons import told_names
from addons.told_names import _NAMES_OF_ONE, KEPT_SECONDS, ToldNames

ONE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")


def test_an_address_is_known_for_longer_than_its_client_is_told():
    told = ToldNames()
    told.note("a", "x.example", (ONE,), 0.0)

    assert told.has("a", "x.example", ONE, KEPT_SECONDS)
    assert not told.has("a", "x.example", ONE, KEPT_SECONDS + 1)


def test_each_answer_counts_from_when_it_was_given():
    told = ToldNames()
    told.note("a", "x.example", (ONE,), 0.0)
    told.note("a", "x.example", (OTHER,), 200.0)

    assert told.has("a", "x.example", ONE, 250.0)
    assert told.has("a", "x.example", OTHER, 450.0)
    assert not told.has("a", "x.example", ONE, 450.0)


def test_what_one_was_told_says_nothing_of_another_name_or_agent():
    told = ToldNames()
    told.note("a", "x.example", (ONE,), 0.0)

    assert not told.has("a", "y.example", ONE, 0.0)
    assert not told.has("b", "x.example", ONE, 0.0)
    assert not told.has("a", "x.example", OTHER, 0.0)


def test_an_agent_that_asks_for_many_names_loses_its_own_oldest():
    told = ToldNames()
    told.note("quiet", "x.example", (ONE,), 0.0)
    for number in range(_NAMES_OF_ONE + 1):
        told.note("loud", f"{number}.example", (ONE,), 0.0)

    assert told.has("quiet", "x.example", ONE, 0.0)
    assert not told.has("loud", "0.example", ONE, 0.0)
    assert told.has("loud", f"{_NAMES_OF_ONE}.example", ONE, 0.0)


def test_all_agents_together_fill_no_memory(monkeypatch):
    monkeypatch.setattr(told_names, "_REMEMBERED", 10)
    told = ToldNames()
    for number in range(25):
        told.note(f"agent-{number}", "x.example", (ONE,), 0.0)

    assert sum(len(own) for own in told._told.values()) <= 10
    assert told.has("agent-24", "x.example", ONE, 0.0)
