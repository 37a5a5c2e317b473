"""Policies and data tables as files: found, read whole, compiled."""

from __future__ import annotations

import gc
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from blake3 import blake3

from addons import shipped
from addons.client_authority import Authority, AuthorityError, is_authority
from addons.client_authority import read as read_authority
from addons.errors import GovernorError
from addons.policy_archive import packed, unpacked
from addons.time_zones import ZONES
from addons.yaml_nodes import LARGEST_BYTES, compose
from kernel.account_review import account_findings
from kernel.address import named_ranges
from kernel.ahead.outlook import as_if
from kernel.analysis.review import Tables
from kernel.cascade_review import cascade_findings
from kernel.compiler import Compiled, compile_policy, raise_errors
from kernel.document import Keys, Reader
from kernel.errors import PolicyError
from kernel.findings import Finding, Severity
from kernel.llm_review import llm_findings
from kernel.llm_terms import Call
from kernel.pattern import host_pattern, url_pattern
from kernel.policy import HostPattern, Policy
from kernel.price_lists import read_table
from kernel.prices import Prices
from kernel.suffix import Suffixes
from kernel.whole_secrets import whole_secrets

_SHIPPED = shipped.ROOT / "policies"
# What was kept beside a log may be several files, each of them as large as one may be.
_MOST_BYTES = 8 * LARGEST_BYTES
_TABLE = Keys("a data table", now=frozenset({"source", "date", "entries"}), required=("source", "date", "entries"))


class PolicyMissing(GovernorError):
    """A policy file that is not there or cannot be read."""


def load_policy(
    paths: Sequence[Path], known_agents: frozenset[str] = frozenset(), *, ahead: bool = False
) -> Compiled:
    """The policy in the files, and in what it names. Raises `PolicyMissing`, or `PolicyError` with every finding.

    With `ahead` keys without effect yet are read and analysed, too. What comes of that is never given to an enforcer.
    """
    sources = [(str(path), read(path)) for path in paths]
    return with_authority(read_policy(sources, known_agents, ahead=ahead), [data for _, data in sources])[0]


def with_authority(compiled: Compiled, contents: Sequence[bytes]) -> tuple[Compiled, Authority | None]:
    """The policy with the CA that it names for clients, which its digest names, too; None where it names none.

    `contents` are its files; where the CA was kept with them, that one is meant, and not the file of today. Raises
    `PolicyError` with the place at which the CA is named.
    """
    said = compiled.policy.identity.authority
    if said is None:
        return compiled, None
    for each in (part for content in contents for part in unpacked(content)):
        if is_authority(each):
            return compiled, Authority(each)
    try:
        found = read_authority(Path(said.position.file).parent / said.file, datetime.now(UTC))
    except AuthorityError as refused:
        raise PolicyError([Finding("E230", Severity.ERROR, said.position, refused.problem, refused.hint)]) from refused
    digest = blake3(kept([*contents, found.pem], compiled.policy)).hexdigest()
    return replace(compiled, policy=replace(compiled.policy, digest=digest)), found


def read_policy(
    sources: Sequence[tuple[str, bytes]], known_agents: frozenset[str] = frozenset(), *, ahead: bool = False
) -> Compiled:
    """The policy in files that were read already, each with its name. Raises `PolicyError` with every finding.

    One that was kept beside a log may be given as the file that it is there.
    """
    given = [data for _, data in sources]
    if len(sources) == 1:
        sources = _taken_apart(*sources[0])
    _refuse_secrets(sources)
    ranges = named_ranges(metadata_ranges())
    tables = [source for source in sources if _is_prices(source[1])]
    with _without_collection():
        documents = [compose(data, name) for name, data in sources if not (_is_prices(data) or is_authority(data))]
        compiled = compile_policy(documents, ranges, "", known_agents, ZONES, int(time.time()), ahead=ahead,
                                  tables=known_of_the_world(), calls=model_calls(), prices=_prices(tables))
    digest = blake3(kept(given, compiled.policy)).hexdigest()
    return _looked_over(replace(compiled, policy=replace(compiled.policy, digest=digest)), known_agents)


def kept(contents: Sequence[bytes], policy: Policy) -> bytes:
    """What is kept of a policy beside the log: its files, the CA of clients that is given behind them, and where it
    counts what models cost the shipped prices, too.

    So a later version, with other prices, judges by those that were in force.
    """
    known = any(_is_prices(each) for content in contents for each in unpacked(content))
    return packed([*contents, _shipped_prices()] if policy.counts_spend and not known else contents)


def _is_prices(data: bytes) -> bool:
    """True for a table of prices: no policy has such a first line."""
    return data.startswith(b"table: prices\n")


def _prices(tables: Sequence[tuple[str, bytes]]) -> Prices:
    """The prices that were kept beside a policy; else those that are shipped."""
    return read_table(compose(tables[-1][1], tables[-1][0]))[0] if tables else shipped_prices()


def _looked_over(compiled: Compiled, known_agents: frozenset[str]) -> Compiled:
    policy = compiled.policy
    more = (*account_findings(policy, llm_hosts()), *llm_findings(as_if(policy, ()), model_calls()),
            *cascade_findings(policy, known_agents | policy.identity.agents))
    findings = (*compiled.findings, *more)
    raise_errors(findings)
    return Compiled(compiled.policy, findings)


def _taken_apart(name: str, data: bytes) -> Sequence[tuple[str, bytes]]:
    files = unpacked(data)
    return [(f"{name}#{n}" if len(files) > 1 else name, file) for n, file in enumerate(files, start=1)]


def _refuse_secrets(sources: Sequence[tuple[str, bytes]]) -> None:
    """Before anything else: other findings quote what they are about."""
    found = [finding for name, data in sources for finding in whole_secrets(data.decode("utf-8", "replace"), name)]
    if found:
        raise PolicyError(found)


def is_policy(name: str) -> bool:
    """True when a file in a folder of policies is one, by its name: YAML, and no cases."""
    return name.endswith((".yaml", ".yml")) and not name.startswith(".") and not is_cases(name)


def is_cases(name: str) -> bool:
    """True when a file is one of cases, by its name."""
    return name.endswith((".cases.yaml", ".cases.yml")) and not name.startswith(".")


@contextmanager
def _without_collection() -> Iterator[None]:
    # 10,000 rules are 300,000 objects that all stay: collecting while they are made costs a third of the time.
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def read(path: Path) -> bytes:
    """The bytes of a file, a pipe or a device; of a very large one so many that it is refused."""
    return _opened(path)


def read_file(path: Path) -> bytes:
    """The same of a file alone: whoever reads a pipe waits for its writer, and finds it empty the next time."""
    return _opened(path, file_alone=True)


def _opened(path: Path, *, file_alone: bool = False) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_NONBLOCK if file_alone else 0))
        try:
            if file_alone and not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PolicyMissing(f"{path}: not a file; a policy that governs is a file, which can be read again")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(_MOST_BYTES)
        finally:
            os.close(descriptor)
    except OSError as fault:
        raise PolicyMissing(f"{path}: {fault.strerror or fault}") from fault
    except ValueError as fault:
        raise PolicyMissing(f"{str(path)!r}: not the name of a file") from fault


def shipped_policy(name: str) -> Path:
    """Where a policy that comes with Governor lies: `default`, `demo`."""
    return (_SHIPPED / f"{name}.yaml").resolve()


@cache
def metadata_ranges() -> tuple[str, ...]:
    """The addresses at which clouds answer their guests with credentials."""
    return _table("metadata-ranges.yaml")


@cache
def llm_hosts() -> tuple[str, ...]:
    """The hosts of the large model providers' APIs."""
    return _table("llm-hosts.yaml")


@cache
def secret_path_hosts() -> tuple[HostPattern, ...]:
    """The hosts whose paths are secrets."""
    return tuple(map(host_pattern, _table("secret-path-hosts.yaml")))


@cache
def model_calls() -> tuple[Call, ...]:
    """The harmless calls with which the clients of model APIs begin."""
    written = (text.split(" ", 1) for text in _table("llm-housekeeping.yaml"))
    return tuple(Call(method, url_pattern(url, {})) for method, url in written)


@cache
def shipped_prices() -> Prices:
    """What models cost, as far as the release knows."""
    return read_table(compose(_shipped_prices(), "prices.yaml"))[0]


@cache
def _shipped_prices() -> bytes:
    return _shipped(_SHIPPED / "data" / "prices.yaml")


@cache
def public_suffixes() -> tuple[str, ...]:
    """The rules of the Public Suffix List, names as A-labels: `com`, `*.ck`, `!www.ck`."""
    path = _SHIPPED / "data" / "public-suffixes.dat"
    try:
        text = _shipped(path).decode("ascii")
    except UnicodeDecodeError as fault:
        raise PolicyMissing(f"{path}: not in ASCII, as it was shipped; install Governor again") from fault
    return tuple(line for line in text.splitlines() if line and not line.startswith("//"))


@cache
def known_of_the_world() -> Tables:
    """What the review of a policy knows of names."""
    return Tables(tuple(map(host_pattern, _table("exfiltration-hosts.yaml"))), Suffixes(public_suffixes()))


@dataclass(frozen=True, slots=True)
class Table:
    """A data table: where it comes from, of which date, and what it lists."""

    source: str
    date: str
    entries: tuple[str, ...]


def _table(name: str) -> tuple[str, ...]:
    path = _SHIPPED / "data" / name
    return _as_table(_shipped(path), str(path)).entries


def _shipped(path: Path) -> bytes:
    try:
        return shipped.content(path)
    except OSError as fault:
        raise PolicyMissing(f"{path}: {fault.strerror or fault}") from fault


def table(path: Path) -> Table:
    """A table of data. Raises `PolicyError` where it is not of their form."""
    return _as_table(read(path), str(path))


def _as_table(data: bytes, name: str) -> Table:
    document = compose(data, name)
    reader = Reader(document.file)
    found = reader.mapping(document.root, _TABLE) or {}
    source, date = (reader.text(found[key], key) or "" if key in found else "" for key in ("source", "date"))
    entries = tuple(word.text for word in reader.words(found["entries"], "entries")) if "entries" in found else ()
    if reader.findings:
        raise PolicyError(reader.findings)
    return Table(source, date, entries)
