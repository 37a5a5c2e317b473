"""What may meet a box is found without looking at the rest, and nothing that meets it is left out."""

from __future__ import annotations

import pytest

from kernel.analysis.box import Box
from kernel.analysis.language import EVERY, TooHard
from kernel.analysis.places import Entry, merged
from kernel.analysis.region import Region
from kernel.analysis.shapes import Shapes
from tests.kernel.test_analysis_review import policy_of

MANY = range(16)
PATHS = [f"{{deny: p{n}, to: a.example, paths: ['/p{n}/**']}}" for n in MANY]
AGENTS = [f"{{deny: q{n}, to: b.example, from: ['a{n}-*']}}" for n in MANY]
ADDRESSES = [f"{{deny: r{n}, to: c.example, address: 10.{n}.0.0/16}}" for n in MANY]
HOSTS = [f"{{deny: s{n}, to: .h{n}.example}}" for n in MANY]
GRANTS = [f"{{allow: t{n}, to: a.example, paths: ['/p{n}/*'], methods: any}}" for n in MANY]
WIDE = [
    "{deny: w1, paths: ['/p1*']}", "{deny: w2, to: .example}", "{deny: w3, to: a.example}", "{deny: w4, from: 'a1*'}",
    "{deny: w5, to: 10.0.0.0/8}", "{deny: w6, to: [x.h3.example, '*.b.example']}", "{deny: w8, to: 9.9.9.9}",
    "{deny: w7, to: a.example, paths: ['/**/x', '/p3/p4', '/p%2Fq']}", "{deny: w9, to: a.example, paths: ['/p5*/y']}",
    "{deny: w10, from: [a3-1, 'b-*'], to: b.example}", "{deny: w11, to: h3.example, except: {to: x.h3.example}}",
    "{deny: w12, paths: ['/**'], methods: [PUT]}", "{deny: w13, to: [b.example, x.b.example], from: a3-1}",
]  # fmt: skip


def region_of(*rules: str) -> Region:
    policy = policy_of("\n".join(f"  - {rule}" for rule in rules))
    return Region(policy, Shapes([policy]))


def meeting(region: Region, box: Box, entries: tuple[Entry, ...]) -> list[Entry]:
    return [entry for entry in entries if region.boxes.meet(box, entry.box) is not None]


@pytest.mark.parametrize("rules", [
    pytest.param([*WIDE, *PATHS, *AGENTS, *ADDRESSES, *HOSTS], id="many"),
    pytest.param(WIDE, id="few"),
    pytest.param([*WIDE, *PATHS, *GRANTS], id="grants"),
])
def test_all_that_meets_a_box_is_near_it_in_the_order_of_the_rules(rules):
    region = region_of(*rules)
    entries = region.refusals.entries

    for entry in (*entries, *region.grants.entries):
        near = region.refusals.near(entry.box)
        assert [each for each in near if region.boxes.meet(entry.box, each.box) is not None] == meeting(
            region, entry.box, entries)
        assert near == [each for each in entries if each in near]


@pytest.mark.parametrize("rules", [GRANTS, AGENTS, ADDRESSES, HOSTS], ids=["paths", "agents", "addresses", "hosts"])
def test_what_is_told_apart_by_beginnings_addresses_or_hosts_is_not_near(rules):
    region = region_of(*rules, *(f"{{deny: z{n}, to: z{n}.example}}" for n in MANY))

    for filed in (region.refusals, region.grants):
        for entry in filed.entries:
            assert filed.near(entry.box) == meeting(region, entry.box, filed.entries)


def test_paths_are_told_apart_by_beginnings_in_the_second_reading_too():
    region = region_of(*PATHS)
    second = [entry for entry in region.refusals.entries if any(each.second for each in entry.box.langs[1].pos)]

    assert len(second) == len(PATHS)
    for entry in second:
        assert [each for each in region.refusals.near(entry.box) if each in second] == [entry]


def test_boxes_that_differ_in_their_addresses_or_their_hosts_alone_are_one():
    rules = [*(f"{{deny: h{n}, to: {host}, address: 10.{n}.0.0/16}}" for n in MANY[:3] for host in ["a.example"]),
             "{deny: b, to: b.example, address: 10.0.0.0/8}", "{deny: c, to: c.example, address: 10.0.0.0/8}",
             "{deny: d, to: c.example, address: 10.0.0.0/8, methods: [GET]}"]
    region = region_of(*rules)
    entries = region.refusals.entries
    found = merged(entries)

    assert [entry.rule.name for entry in found] == ["h0", "b", "d"]
    assert [any(not set(region.boxes.left(one.box, [each.box])) for each in found) for one in entries] == [True] * 6
    for entry in found:
        assert region.boxes.covered(entry.box, [each.box for each in entries])


@pytest.mark.parametrize("rules", [
    pytest.param([*WIDE, *PATHS[:4], *AGENTS[:4]], id="many"),
    pytest.param(["{deny: a, paths: ['/a/b/x/**']}", "{deny: b, paths: ['/a/**'], except: {paths: ['/a/b/**']}}"],
                 id="a hole in paths of which something was taken away"),
    pytest.param(["{deny: a, from: 'a-b-x-*'}", "{deny: b, from: 'a-*', except: {from: 'a-b-*'}}"],
                 id="a hole in agents of whom some were taken away"),
    pytest.param(["{deny: a, paths: ['/a/**'], except: {paths: ['/a/b/**']}}", "{deny: b, paths: ['/**/x', '/a/b/*']}"],
                 id="a hole of which something is taken away"),
])
def test_what_is_left_of_a_box_is_in_pieces_that_do_not_meet(rules):
    region = region_of(*rules)
    boxes = [entry.box for entry in region.refusals.entries]
    pieces = list(region.boxes.left(region.shapes.everything, boxes))

    assert pieces
    for place, piece in enumerate(pieces):
        assert not any(region.boxes.meet(piece, other) for other in (*boxes, *pieces[:place]))
    assert region.boxes.covered(region.shapes.everything, [*boxes, *pieces])
    assert not region.boxes.covered(region.shapes.everything, [*boxes, *pieces[1:]])
    assert region.shapes.everything.langs == (EVERY, EVERY)


def test_what_is_left_in_too_many_pieces_is_not_told():
    region = region_of("{deny: a, to: a.example}", "{deny: b, to: b.example, methods: GET}", "{deny: c, to: c.example}")
    boxes = [entry.box for entry in region.refusals.entries]
    # Each box that is taken away counts, and each piece that it leaves: b leaves other hosts, and other methods there.
    needed = (1 + 1) + (1 + 2) + (1 + 1)

    assert len(list(region.boxes.left(region.shapes.everything, boxes, needed))) == 2
    with pytest.raises(TooHard):
        list(region.boxes.left(region.shapes.everything, boxes, needed - 1))
