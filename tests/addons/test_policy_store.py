"""Which policy governs, and the copy of it that an auditor finds beside the log."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from blake3 import blake3

from addons import policy_store
from addons.errors import StartRefused
from addons.governed import Governed
from addons.home import Home
from addons.identity import Registry
from addons.policy_files import shipped_policy
from kernel.errors import PolicyError

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


def test_a_reload_reads_the_same_files_again(governed: Governed, registry: Registry, file: Path) -> None:
    file.write_text(POLICY.replace("local", "changed"))

    assert [rule.name for rule in policy_store.again(governed, registry).policy.rules] == ["changed"]


def test_a_reload_of_a_bad_policy_raises_its_findings(governed: Governed, registry: Registry, file: Path) -> None:
    file.write_text("version: 2\n")

    with pytest.raises(PolicyError):
        policy_store.again(governed, registry)


def test_a_reload_of_a_policy_that_is_gone_is_refused(governed: Governed, registry: Registry, file: Path) -> None:
    file.unlink()

    with pytest.raises(StartRefused, match="POLICY_MISSING"):
        policy_store.again(governed, registry)


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


def test_a_reload_reads_every_tier_again_and_a_bad_one_leaves_the_old(
    home: Home, registry: Registry, file: Path, tmp_path: Path
) -> None:
    below = tmp_path / "below.yaml"
    below.write_text(POLICY.replace("local", "narrower"))
    governed = policy_store.first([file, below], home.paths, registry)

    below.write_text(POLICY.replace("local", "other"))
    assert [rule.name for rule in policy_store.again(governed, registry).policy.rules] == ["local", "other"]
    below.write_text(POLICY)
    with pytest.raises(PolicyError, match="E107"):
        policy_store.again(governed, registry)
