"""The state of a lane in a file: the same state in the same bytes, and nothing else is read."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel import entry
from kernel.budget import Counter, Effect
from kernel.contagion import Prevention
from kernel.errors import SnapshotError
from kernel.folding import States
from kernel.measures import Rate
from kernel.snapshot import Snapshot, decode, encode, head
from kernel.state import (
    Account,
    Draw,
    Halt,
    Lease,
    Leased,
    OpenFlow,
    Preventive,
    Quarantine,
    Run,
    Standing,
    State,
    Switch,
)
from tests.conftest import scaled
from tests.kernel.accounting import DENIED, Kernel, budget, policy, rate

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(0, 2**53 - 1)
runs = st.dictionaries(text, st.builds(Run, numbers, numbers, text), max_size=3)
halts = st.builds(Halt, text, numbers, text | st.none(), text, st.lists(text, max_size=2).map(tuple), text, text)
quarantines = st.builds(Quarantine, numbers, text, text, text)
preventives = st.builds(Preventive, st.sampled_from(Prevention), numbers, text, st.lists(text, max_size=3).map(tuple),
                        numbers, text, numbers, st.booleans())
standings = st.builds(Standing, numbers, numbers, halts | st.none(), numbers, quarantines | st.none(), runs, runs, text,
                      preventives | st.none())
accounts = st.builds(Account, numbers, numbers, numbers, st.frozensets(text, max_size=3), text)
draws = st.builds(Draw, text, text.filter(bool) | st.none(), text, numbers, numbers, st.none())
flows = st.builds(OpenFlow, text, text, numbers, text | st.none(), st.lists(draws, max_size=2).map(tuple))
states = st.builds(
    State,
    st.dictionaries(text, standings.filter(lambda each: each != Standing()), max_size=3),
    st.dictionaries(st.tuples(text, text, text), accounts, max_size=4),
    st.dictionaries(st.tuples(text, text), numbers, max_size=3),
    st.dictionaries(text, flows, max_size=3),
    st.booleans(), st.booleans(), st.booleans(), numbers, st.dictionaries(text, st.integers(1, 2**53 - 1), max_size=3),
)
keys = st.tuples(text, text, text)
leased = st.dictionaries(keys, st.builds(Leased, numbers, numbers, numbers, st.none() | numbers), max_size=3)
leases = st.dictionaries(numbers, st.builds(Lease, keys, numbers, numbers), max_size=3)
pooled = st.builds(lambda state, *pool: replace(state, pooled=True, leased=pool[0], leases=pool[1], heard=pool[2],
                                                    workers=pool[3]),
                   states, leased, leases, numbers, numbers)
was_pooled = st.builds(lambda state, heard: replace(state, heard=heard), states, numbers)
switched = st.builds(lambda state, epoch, halt: replace(state, switch=Switch(epoch, halt)),
                     states | pooled, numbers, halts | st.none())
snapshots = st.builds(Snapshot, text, numbers, st.builds(States, states | pooled | was_pooled | switched, states))


@given(snapshots)
def test_what_is_written_is_read_as_it_was(snapshot):
    assert decode(encode(snapshot)) == snapshot
    assert head(encode(snapshot).partition(b"\n")[0]) == (snapshot.lane, snapshot.at)


def reordered(values, chance):
    items = list(values.items())
    chance.shuffle(items)
    return dict(items)


@given(snapshots, st.randoms(use_true_random=False))
def test_the_same_state_is_the_same_bytes_in_whatever_order_it_came_about(snapshot, chance):
    both = [State(*(reordered(values, chance) for values in (each.agents, each.accounts, each.paces, each.open)),
                  each.clock_ok, each.clock_accepted, each.broken, each.taken_over, reordered(each.seen, chance),
                  each.pooled, each.workers, reordered(each.leased, chance), reordered(each.leases, chance), each.heard,
                  each.switch)
            for each in (snapshot.states.real, snapshot.states.shadow)]

    assert encode(Snapshot(snapshot.lane, snapshot.at, States(*both))) == encode(snapshot)


def busy() -> Snapshot:
    """A state in which everything occurs."""
    kernel = Kernel(policy(budget({"requests": 9, "bytes": 10**8, "new-hosts": 9}, {"requests": 40}),
                           rates=(rate(Rate(5, 1)),), counters=(Counter("persistence", 5, Effect.DENY),)))
    for agent in ("one", "two", "thr\u00e9e"):
        kernel.ask(agent, place=f"{agent}.example:443")
        kernel.end(down=100)
        kernel.ask(agent, verdict=DENIED, request="refused")
        kernel.ask(agent, request="open")
    kernel.act("halt", "two", sources=["192.0.2.1"])
    kernel.act("quarantine", "one", until="2027-01-15T08:30:00.000000Z")
    kernel.log(entry.preventive("one", "throttle", "2027-01-15T08:30:00.000000Z", "two", ["two", "one"], 1, "main/9",
                                "on-halt", degraded=False), "one")
    shadow = Kernel(policy(budget({"requests": 9})))
    shadow.ask("one")
    return Snapshot("main", 27, States(kernel.state, shadow.state))


def test_a_state_that_came_about_is_read_as_it_was():
    snapshot = busy()
    again = decode(encode(snapshot))

    assert again.states.real.agents == snapshot.states.real.agents
    assert encode(again) == encode(snapshot)


def test_the_file_is_what_its_description_says():
    lines = [json.loads(line) for line in encode(busy()).decode().splitlines()]

    assert lines[0] == {"at": 27, "lane": "main", "v": 1}
    assert [line["state"] for line in lines[1:] if isinstance(line, dict)] == ["real", "shadow"]
    agents = [line[0] for line in lines if isinstance(line, list) and len(line) == 11]
    assert agents == ["", "one", "thr\u00e9e", "two", "one"]
    active = [line[0] for line in lines if isinstance(line, list) and len(line) == 3]
    assert active == ["one", "thr\u00e9e", "two", "one"]
    assert {len(line) for line in lines if isinstance(line, list)} == {3, 6, 11}


def readable(raw: bytes) -> bool:
    try:
        decode(raw)
    except SnapshotError:
        return False
    return True


@settings(max_examples=scaled(200))
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_byte_that_is_changed_makes_another_state_or_none(at, mask):
    raw = encode(busy())
    at %= len(raw)
    changed = raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1:]

    if readable(changed):
        assert encode(decode(changed)) == changed


@pytest.mark.parametrize("change", [
    pytest.param(lambda raw: raw[:-1], id="without its last line feed"),
    pytest.param(lambda raw: raw + b"\n", id="an empty line more"),
    pytest.param(lambda raw: raw + b"rubbish", id="something after it"),
    pytest.param(lambda raw: raw + raw, id="twice"),
    pytest.param(lambda raw: b"", id="empty"),
    pytest.param(lambda raw: b"\xff" + raw, id="not UTF-8"),
    pytest.param(lambda raw: raw.replace(b",", b", ", 1), id="a space"),
    pytest.param(lambda raw: raw.replace(b"\xc3\xa9", b"\\u00e9"), id="an escape"),
    pytest.param(lambda raw: raw.replace(b'"v":1', b'"v":2'), id="another version"),
    pytest.param(lambda raw: raw.replace(b'"v":1', b'"v":true'), id="true for one"),
    pytest.param(lambda raw: raw.replace(b'"at":27', b'"at":"27"'), id="a number as text"),
    pytest.param(lambda raw: raw.replace(b'"clock_ok":true', b'"clock_ok":1'), id="one for true"),
    pytest.param(lambda raw: raw.replace(b'"v":1}', b'"v":1,"w":1}'), id="a key more"),
    pytest.param(lambda raw: raw.replace(b'["one",0,', b'["one",false,'), id="false for zero"),
    pytest.param(lambda raw: raw.replace(b'["one",0,', b'["one",0.0,'), id="a fraction"),
    pytest.param(lambda raw: raw.replace(b'["one",0,', b'["one",'), id="a field less"),
    pytest.param(lambda raw: b"".join(sorted(raw.splitlines(keepends=True))), id="lines in another order"),
    pytest.param(lambda raw: raw.replace(b'["192.0.2.1"]', b"[7]"), id="a source that is none"),
    pytest.param(lambda raw: raw[:raw.index(b'{"broken":false', 60)], id="without its second half"),
    pytest.param(lambda raw: b"[" * 10**5, id="very deep"),
])
def test_what_is_written_otherwise_is_refused(change):
    raw = encode(busy())
    assert change(raw) != raw

    assert not readable(change(raw))


def test_cut_off_within_a_line_it_is_refused_and_between_two_it_is_never_taken_for_the_whole():
    raw = encode(busy())

    for at in random.Random(1).sample(range(len(raw)), min(scaled(200), len(raw))):
        cut = raw[:at]
        if readable(cut):
            # Whose digest the log does not know.
            assert cut.endswith(b"\n")
            assert encode(decode(cut)) == cut


def decision(mode="enforce", **more):
    facts = entry.request_facts("GET", "https", "a.example", 443, None, None, 0, None)
    body = entry.decision("request", "f", "one", "none", "0" * 64, facts, (), "allow", None, "ALLOW", "", mode)
    return body | {"ts": "2026-01-02T03:04:05.000006Z", **more}


def ended(decision):
    return entry.outcome("f", decision, "unknown") | {"ts": "2026-01-02T03:04:06.000006Z"}


DRAWS = [{"budget": "b", "for": "one", "unit": "requests", "window": 7, "amount": 1, "lease": None}]


def test_what_passes_on_trial_is_counted_in_a_state_of_its_own_until_it_ends():
    states = States()
    states.fold(decision("observe", draws=DRAWS), "main/2")
    states.fold(decision(draws=DRAWS), "main/3")
    assert (list(states.real.open), list(states.shadow.open)) == (["main/3"], ["main/2"])

    states.fold(ended("main/2"), "main/4")

    key = ("b", "requests", "one")
    assert (states.real.account(key), states.shadow.account(key)) == (Account(7, 0, 1), Account(7, 1, 0))
    assert (list(states.real.open), list(states.shadow.open)) == (["main/3"], [])


def test_entries_of_before_there_were_accounts_are_read():
    states = States()
    states.fold(decision(draws=[]), "main/2")
    states.fold(decision(draws=[{**DRAWS[0], "for": None}]), "main/3")
    without = {name: value for name, value in DRAWS[0].items() if name != "for"}
    states.fold(decision(draws=[without]), "main/4")
    for body in (entry.close("done"), entry.policy_load("0" * 64, [], "observe", {}), {"type": "heartbeat"},
                 entry.operator("agents add", "one", "", "ann", "cli"), ended("main/2")):
        states.fold({"ts": "2026-01-02T03:04:05.000006Z", **body}, "main/5")

    assert list(states.real.open) == ["main/3", "main/4"]
    assert states.real.account(("b", "requests", "")).held == 2
