"""Check the tables of policies/data: where they come from and of when, their order, and that every entry can be read.

`python -m scripts.data_check` prints one line for each problem. Exit status: 0 none, 1 some.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from ipaddress import ip_network
from pathlib import Path

from addons.policy_files import table
from addons.yaml_nodes import compose
from kernel.errors import KernelError
from kernel.normal import host
from kernel.pattern import host_matches, host_pattern, url_pattern
from kernel.policy import HostPattern, HostReach
from kernel.price_lists import read_table
from kernel.prices import Price
from kernel.question import facts_of

FOLDER = Path(__file__).resolve().parents[1] / "policies" / "data"
_CALL = re.compile(r"(?:GET|HEAD|POST) https://\S+")


def host_problems(entries: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with a list of host patterns: unsorted, unreadable, or named by another pattern already."""
    if list(entries) != sorted(entries, key=lambda entry: (entry.lstrip("."), entry)):
        yield "the hosts are not sorted by name"
    patterns = []
    for entry in entries:
        try:
            patterns.append(host_pattern(entry))
        except KernelError as refused:
            yield f"{entry}: {refused}"
    for pattern in patterns:
        wider = [other for other in patterns if other is not pattern and _covers(other, pattern)]
        if wider:
            yield f"{pattern.name} is covered by the entry for {wider[0].name}"


def _covers(wide: HostPattern, narrow: HostPattern) -> bool:
    if not host_matches(wide, host(narrow.name)):
        return False
    return wide.reach is not HostReach.EXACT or narrow.reach is HostReach.EXACT


def address_problems(entries: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with a list of addresses and ranges."""
    for entry in entries:
        try:
            ip_network(entry)
        except ValueError as fault:
            yield f"{entry}: {fault}"


def call_problems(entries: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with a list of calls, each a method and a URL pattern."""
    if list(entries) != sorted(entries, key=lambda entry: entry.partition("//")[2]):
        yield "the calls are not sorted by host and path"
    for entry in entries:
        if not _CALL.fullmatch(entry):
            yield f"{entry}: not a method and an https URL"
            continue
        method, url = entry.split(" ")
        try:
            url_pattern(url, {})
            facts_of("local", method, url)
        except KernelError as refused:
            yield f"{entry}: {refused}"


KINDS: dict[str, Callable[[tuple[str, ...]], Iterator[str]]] = {
    "exfiltration-hosts.yaml": host_problems,
    "llm-hosts.yaml": host_problems,
    "llm-housekeeping.yaml": call_problems,
    "metadata-ranges.yaml": address_problems,
    "secret-path-hosts.yaml": host_problems,
}


PRICES = "prices.yaml"


def price_problems(path: Path, today: date) -> Iterator[str]:
    """What is wrong with the table of prices."""
    try:
        prices, origins = read_table(compose(path.read_bytes(), path.name))
    except KernelError as refused:
        yield str(refused)
        return
    for origin in origins:
        yield from (f"{origin.provider}: {problem}" for problem in _origin_problems(origin.source, origin.date, today))
    for provider, priced in prices.table.items():
        for each in priced:
            yield from (f"{provider}: {each.models[0]}: {problem}" for problem in _odd(each.price))


def _odd(price: Price) -> Iterator[str]:
    """What no provider charges: its sign is a slip of the pen."""
    if not price.cached <= price.input <= price.written:
        yield "what was cached is dearer than input, or what is cached for later is cheaper"
    if price.output < price.input:
        yield "output is cheaper than input"
    if price.longest_output > price.context:
        yield "the longest output is longer than the context"


def table_problems(path: Path, today: date) -> Iterator[str]:
    """What is wrong with one table. Its kind is told by its name."""
    if path.name == PRICES:
        yield from price_problems(path, today)
        return
    if path.name not in KINDS:
        yield "a table that is not known here"
        return
    try:
        found = table(path)
    except KernelError as refused:
        yield str(refused)
        return
    yield from _origin_problems(found.source, found.date, today)
    if len(set(found.entries)) < len(found.entries):
        yield "an entry stands twice"
    yield from KINDS[path.name](found.entries)


def _origin_problems(source: str, written: str, today: date) -> Iterator[str]:
    if len(source) < len("a name"):
        yield "the source says nothing"
    try:
        when = date.fromisoformat(written)
    except ValueError:
        yield f"{written} is not a date"
        return
    if when > today:
        yield f"{written} lies in the future"


def problems(folder: Path, today: date) -> list[str]:
    """Everything that is wrong with the tables of a folder."""
    tables = sorted(folder.glob("*.yaml"))
    found = [f"{path.name}: {problem}" for path in tables for problem in table_problems(path, today)]
    missing = {*KINDS, PRICES} - {path.name for path in tables}
    return [*found, *(f"{name}: is not there" for name in sorted(missing))]


def main() -> int:
    """Check the tables of this checkout."""
    found = problems(FOLDER, datetime.now(UTC).date())
    print("\n".join(found) or f"{len(KINDS) + 1} tables are in order")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
