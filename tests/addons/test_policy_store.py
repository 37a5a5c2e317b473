"""Which policy governs, and the copy of it that an auditor finds beside the log."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from addons import policy_files, policy_store
from addons.errors import ReloadRefused, StartRefused
from addons.governed import Governed, prepare
from addons.home import Home
from addons.identity import Registry
from addons.policy_files import shipped_policy
from addons.yaml_nodes import LARGEST_BYTES
from kernel.errors import PolicyError
from kernel.policy import Policy

POLICY = "version: 1\nrules:\n  - {allow: local, to: api.example.org, methods: reads}\n"


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home.paths.agents)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "asked.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def governed(home: Home, registry: Registry, file: Path) -> Governed:
    return policy_store.first([file], home.paths, registry)


def copies(home: Home) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.paths.policies.iterdir()}


def test_the_policy_that_was_asked_for_comes_first(home: Home, registry: Registry, file: Path) -> None:
    home.paths.policy.write_text(POLICY.replace("local", "home"))

    assert [rule.name for rule in policy_store.first([file], home.paths, registry).policy.rules] == ["local"]


def test_the_homes_policy_comes_next(home: Home, registry: Registry) -> None:
    home.paths.policy.write_text(POLICY.replace("local", "home"))

    assert [rule.name for rule in policy_store.first([], home.paths, registry).policy.rules] == ["home"]


def test_without_either_the_shipped_policy_governs(home: Home, registry: Registry) -> None:
    assert policy_store.first([], home.paths, registry).files == (shipped_policy("default"),)


def test_a_policy_with_errors_refuses_the_start_and_says_how_many(home: Home, registry: Registry, file: Path) -> None:
    file.write_text(POLICY.replace("allow", "alow").replace("reads", "raeds") + "contcat: x\n")
    told = r"POLICY_INVALID: .*asked\.yaml:\d+:\d+: .* \(and \d+ more: governor policy check\)"

    with pytest.raises(StartRefused, match=told):
        policy_store.first([file], home.paths, registry)


def test_a_policy_that_is_not_there_refuses_the_start(home: Home, registry: Registry, file: Path) -> None:
    with pytest.raises(StartRefused, match="POLICY_MISSING"):
        policy_store.first([file, file.with_name("absent.yaml")], home.paths, registry)


def test_a_reload_reads_the_same_files_again_and_keeps_them(
    governed: Governed, home: Home, registry: Registry, file: Path
) -> None:
    file.write_text(POLICY.replace("local", "changed"))

    changed = policy_store.again(governed, home.paths, registry)

    assert [rule.name for rule in changed.policy.rules] == ["changed"]
    assert list(copies(home)) == [f"{changed.policy.digest}.yaml"]


@pytest.mark.parametrize("content", [
    pytest.param(b"version: 2\n", id="invalid"),
    pytest.param(b"", id="empty"),
    pytest.param(b"\xef\xbb\xbf" + POLICY.encode(), id="a byte order mark"),
    pytest.param(POLICY.encode("utf-16"), id="UTF-16"),
    pytest.param(POLICY.encode() + b"\xff", id="not UTF-8"),
    pytest.param(b"#" * (LARGEST_BYTES + 1), id="too large"),
    pytest.param(POLICY.encode()[:-4], id="written in part"),
])
def test_a_reload_of_a_bad_policy_raises_its_findings_and_keeps_nothing(
    governed: Governed, home: Home, registry: Registry, file: Path, content: bytes
) -> None:
    file.write_bytes(content)

    with pytest.raises(PolicyError, match=r"asked\.yaml:\d+:\d+: "):
        policy_store.again(governed, home.paths, registry)
    assert copies(home) == {}


def made_of(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def instead(file: Path) -> object:
        file.unlink()
        return make(file)

    return instead


@pytest.mark.parametrize(("spoil", "told"), [
    pytest.param(lambda file: file.unlink(), "No such file", id="gone"),
    pytest.param(made_of(Path.mkdir), "not a file", id="a folder"),
    pytest.param(made_of(os.mkfifo), "not a file", id="a pipe that nobody writes to"),
    pytest.param(made_of(lambda file: file.symlink_to("/dev/zero")), "not a file", id="a device without end"),
    pytest.param(made_of(lambda file: file.symlink_to(file)), "symbolic links", id="a link to itself"),
    pytest.param(made_of(lambda file: file.symlink_to("absent")), "No such file", id="a link to nothing"),
])
def test_a_reload_of_what_is_no_file_is_refused_without_waiting_for_it(
    governed: Governed, home: Home, registry: Registry, file: Path, spoil: Callable[[Path], object], told: str
) -> None:
    spoil(file)

    with pytest.raises(ReloadRefused, match=rf"^POLICY_MISSING: .*asked\.yaml: .*{told}.*; put it back, or restart"):
        policy_store.again(governed, home.paths, registry)


def test_a_policy_may_be_a_link_that_is_turned_to_another_file(
    home: Home, registry: Registry, file: Path, tmp_path: Path
) -> None:
    """As a mounted folder of configuration has it."""
    link, changed = tmp_path / "link.yaml", tmp_path / "changed.yaml"
    link.symlink_to(file)
    governed = policy_store.first([link], home.paths, registry)
    changed.write_text(POLICY.replace("local", "changed"))
    link.unlink()
    link.symlink_to(changed)

    assert [rule.name for rule in policy_store.again(governed, home.paths, registry).policy.rules] == ["changed"]


def test_a_reload_whose_copy_cannot_be_written_is_refused(
    governed: Governed, home: Home, registry: Registry, file: Path
) -> None:
    shutil.rmtree(home.paths.policies)

    with pytest.raises(ReloadRefused, match=r"^HOME_UNWRITABLE: .*; the log must be writable$"):
        policy_store.again(governed, home.paths, registry)


def test_a_file_that_is_written_while_a_reload_reads_it_is_not_taken(
    governed: Governed, home: Home, registry: Registry, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was there of it so far is a whole policy in itself: without its last rule."""
    whole = f"{POLICY}  - {{deny: last, to: gist.example.org}}\n"

    def prepared(*arguments: Any, **more: Any) -> Governed:
        file.write_text(POLICY.replace("local", "changed"))
        half = prepare(*arguments, **more)
        file.write_text(whole)
        return half

    monkeypatch.setattr(policy_store, "prepare", prepared)

    with pytest.raises(ReloadRefused, match=r"asked\.yaml: it changed while it was read; try again$"):
        policy_store.again(governed, home.paths, registry)
    assert copies(home) == {}


def test_tables_that_can_no_longer_be_read_do_not_keep_a_policy_from_being_reloaded(
    governed: Governed, home: Home, registry: Registry, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(policy_files, "_SHIPPED", tmp_path / "absent")
    file.write_text(POLICY.replace("local", "changed"))

    assert policy_store.again(governed, home.paths, registry).secret_paths is not None


TABLES = {
    "metadata-ranges.yaml": policy_files.metadata_ranges, "secret-path-hosts.yaml": policy_files.secret_path_hosts,
    "llm-hosts.yaml": policy_files.llm_hosts, "llm-housekeeping.yaml": policy_files.model_calls,
    "public-suffixes.dat": policy_files.public_suffixes,
}


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"entries: [\xe2\x80\xae]"], ids=["gone", "bytes", "a control"])
@pytest.mark.parametrize("name", TABLES)
def test_without_one_of_its_tables_governor_does_not_start(
    home: Home, registry: Registry, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str,
    content: bytes | None
) -> None:
    shipped = tmp_path / "policies"
    shutil.copytree(policy_files.shipped_policy("default").parent, shipped)
    (shipped / "data" / name).unlink() if content is None else (shipped / "data" / name).write_bytes(content)
    monkeypatch.setattr(policy_files, "_SHIPPED", shipped)
    monkeypatch.setattr(policy_files, TABLES[name].__name__, TABLES[name].__wrapped__)

    with pytest.raises(StartRefused, match=rf"POLICY_(MISSING|INVALID): .*{name}"):
        policy_store.first([file], home.paths, registry)


def test_the_copy_has_the_digest_as_its_name(governed: Governed, home: Home) -> None:
    policy_store.keep(governed, home.paths)
    policy_store.keep(governed, home.paths)

    assert copies(home) == {f"{blake3(POLICY.encode()).hexdigest()}.yaml": POLICY.encode()}


def test_a_file_that_changed_since_it_was_read_is_not_kept_as_what_was_read(
        governed: Governed, home: Home, file: Path) -> None:
    file.write_text(POLICY.replace("local", "other"))

    with pytest.raises(StartRefused, match="POLICY_INVALID"):
        policy_store.keep(governed, home.paths)
    assert copies(home) == {}


def test_a_file_that_vanished_since_it_was_read_is_missing(governed: Governed, home: Home, file: Path) -> None:
    file.unlink()

    with pytest.raises(StartRefused, match="POLICY_MISSING"):
        policy_store.keep(governed, home.paths)


def test_a_copy_that_cannot_be_written_is_told_as_such(
        governed: Governed, home: Home) -> None:
    shutil.rmtree(home.paths.policies)

    with pytest.raises(StartRefused, match="HOME_UNWRITABLE"):
        policy_store.keep(governed, home.paths)


def test_several_files_are_kept_as_one_that_can_be_read_again(
    home: Home, registry: Registry, file: Path, tmp_path: Path
) -> None:
    below = tmp_path / "below.yaml"
    below.write_text(POLICY.replace("local", "narrower"))
    governed = policy_store.first([file, below], home.paths, registry)

    policy_store.keep(governed, home.paths)

    (kept,) = copies(home).items()
    assert kept[0] == f"{governed.policy.digest}.yaml" == f"{blake3(kept[1]).hexdigest()}.yaml"
    again = policy_store.first([home.paths.policies / kept[0]], home.paths, registry).policy
    assert again.digest == governed.policy.digest
    assert [(rule.name, rule.tier) for rule in again.rules] == [("local", 0), ("narrower", 1)]


MONEY = f"{POLICY}  - {{allow: ask, to: api.openai.com, llm: {{models: gpt-5-mini}}}}\nbudgets:\n"
MONEY += "  - {budget: b, each: {usd: 5}, every: day, when-used: {100%: deny}}\n"


def test_a_policy_that_counts_money_is_kept_with_the_prices_that_it_counts_by(
    home: Home, registry: Registry, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file.write_text(MONEY)
    governed = policy_store.first([file], home.paths, registry)

    policy_store.keep(governed, home.paths)

    ((name, content),) = copies(home).items()
    assert name == f"{governed.policy.digest}.yaml" == f"{blake3(content).hexdigest()}.yaml"
    _ship_other_prices(monkeypatch, tmp_path)
    kept, shipped = read([home.paths.policies / name], registry), read([file], registry)
    told = policy_store.kept(governed.policy.digest, [file], home.paths, registry).policy
    asked = "openai", "gpt-5-mini"
    assert kept.prices.of(*asked) == governed.policy.prices.of(*asked)
    assert told.prices.of(*asked) == governed.policy.prices.of(*asked)
    assert kept.digest == told.digest == governed.policy.digest
    assert shipped.prices.of(*asked) != kept.prices.of(*asked)


def test_a_policy_that_counts_no_money_is_kept_as_it_is_whatever_prices_are_shipped(
    home: Home, registry: Registry, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = read([file], registry).digest
    _ship_other_prices(monkeypatch, tmp_path)

    assert read([file], registry).digest == before == blake3(POLICY.encode()).hexdigest()


def test_other_prices_make_another_policy_where_money_is_counted(
    registry: Registry, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file.write_text(MONEY)
    before = read([file], registry).digest
    _ship_other_prices(monkeypatch, tmp_path)

    assert read([file], registry).digest != before


def read(files: list[Path], registry: Registry) -> Policy:
    return prepare(files, registry.tokens.ids).policy


def _ship_other_prices(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    shipped = folder / "policies"
    shutil.copytree(policy_files.shipped_policy("default").parent, shipped)
    table = shipped / "data" / "prices.yaml"
    table.write_text(table.read_text().replace("input: 0.25,", "input: 0.75,"))
    monkeypatch.setattr(policy_files, "_SHIPPED", shipped)
    for cached in (policy_files.shipped_prices, policy_files._shipped_prices):
        monkeypatch.setattr(policy_files, cached.__name__, cached.__wrapped__)


def test_a_reload_reads_every_tier_again_and_a_bad_one_leaves_the_old(
    home: Home, registry: Registry, file: Path, tmp_path: Path
) -> None:
    below = tmp_path / "below.yaml"
    below.write_text(POLICY.replace("local", "narrower"))
    governed = policy_store.first([file, below], home.paths, registry)

    below.write_text(POLICY.replace("local", "other"))
    again = policy_store.again(governed, home.paths, registry)
    assert [rule.name for rule in again.policy.rules] == ["local", "other"]
    below.write_text(POLICY)
    with pytest.raises(PolicyError, match="E107"):
        policy_store.again(governed, home.paths, registry)
