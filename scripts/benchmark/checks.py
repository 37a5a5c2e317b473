"""What `governor policy check` and `diff` take: the full analysis of policies of every awkward shape, on one core."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from random import Random

from addons.policy_files import known_of_the_world, read_policy
from kernel.analysis.difference import difference
from kernel.analysis.review import review
from scripts.benchmark.policies import RULES, policy

_HEAD = "version: 1\n"
_NOW = 1_764_000_000  # what has expired, and the hours that are looked at, hang on it


def measure_checks() -> dict[str, str]:
    """Each shape's name with what its check and its comparison with itself took, and what stayed undecided."""
    return {name: _measured(files) for name, files in _shapes()}


def _measured(files: Sequence[str]) -> str:
    sources = [(f"{number}.yaml", text.encode()) for number, text in enumerate(files)]
    asked = read_policy(sources).policy
    began = time.process_time()
    reviewed = review(asked, known_of_the_world(), _NOW)
    checked = time.process_time() - began
    began = time.process_time()
    compared = difference(asked, asked, _NOW)
    took = time.process_time() - began
    undecided = len(reviewed.undecided) + len(compared.undecided)
    return f"{checked:.2f} s, diff {took:.2f} s, {undecided} undecided"


def _shapes() -> Iterator[tuple[str, list[str]]]:
    yield f"check {RULES:,} rules of the usual kinds", [policy(["127.0.0.1"], [8080])]
    yield "check 5,000 rules on one host", [_rules(
        f"allow: r{n}, to: api.example.org, methods: [GET], paths: ['/p{n}/**']" for n in range(5_000))]
    for size in (20, 40):
        yield f"check {size} rules of crossing ** on one host", [_rules(_crossing(size))]
    yield "check 1,000 addresses denied beside 1,000 hosts", [_rules([
        *(f"deny: d{n}, to: 10.{n // 256}.{n % 256}.7" for n in range(1_000)),
        *(f"allow: r{n}, to: h{n}.example.org, methods: [GET]" for n in range(1_000))])]
    groups = "".join(f"  g{n}: [team{n}-*]\n" for n in range(1_000))
    yield "check 1,000 agent groups", [_rules(
        (f"allow: r{n}, from: g{n}, to: api.example.org, methods: [GET], paths: ['/t{n}/**']" for n in range(1_000)),
        f"agents:\n{groups}")]
    yield "check 40 teams' tiers under one platform's", [_platform(), *map(_team, range(40))]


def _rules(items: Sequence[str] | Iterator[str], head: str = "") -> str:
    return f"{_HEAD}{head}rules:\n" + "".join(f"  - {{{item}}}\n" for item in items)


def _crossing(size: int) -> Iterator[str]:
    chance = Random(1)
    for number in range(size):
        globs = f"paths: ['/**/{chance.choice('abcdef')}/**/{chance.choice('abcdef')}{number}/**']"
        allow = f"allow: r{number}, methods: [GET]" if number % 2 else f"deny: d{number}"
        yield f"{allow}, to: api.example.org, {globs}"


def _platform() -> str:
    allows = (f"allow: p{n}, to: .s{n}.example.org, methods: any, why: teams narrow it" for n in range(40))
    return _rules([*allows, *(f"deny: x{n}, to: x.s{n}.example.org" for n in range(40))], "tier: platform\n")


def _team(team: int) -> str:
    items = (f"allow: t{team}-{n}, to: a.s{n}.example.org, methods: reads, paths: ['/t{team}/**']" for n in range(20))
    return _rules(items, f"tier: team\nfor: [team{team}-*]\n")
