"""Which tiers of a sandbox a machine can hold, and what it is told to install or allow."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from addons.sandbox import tiers
from addons.sandbox.tiers import Tier

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
needs_tools = pytest.mark.skipif(
    any(tiers.tool(name) is None for name in ("ip", "nft", "bwrap")), reason="needs ip, nft and bwrap")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only one in which tools are found; it has the real ones."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ip", "nft", "bwrap", "true"):
        found = tiers.tool(name)
        if found:
            (folder / name).symlink_to(found)
    monkeypatch.setattr(tiers, "TOOL_FOLDERS", ())
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for /proc/sys."""
    monkeypatch.setattr(tiers, "_SYSCTLS", tmp_path / "sys")
    return tmp_path / "sys"


def _script(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@on_linux
@needs_tools
def test_a_machine_with_everything_gets_the_strongest_tier():
    assert tiers.possible(Tier.NETNS) == ()
    assert tiers.best() is Tier.NETNS


@on_linux
@needs_tools
@pytest.mark.parametrize("name", ["ip", "nft", "bwrap"])
def test_a_tool_that_is_not_installed_is_named_with_the_command_that_installs_it(tools, monkeypatch, tmp_path, name):
    (tmp_path / "os-release").write_text('NAME="Debian"\nID=debian\n')
    monkeypatch.setattr(tiers, "_OS_RELEASE", tmp_path / "os-release")
    (tools / name).unlink()

    (missing,) = tiers.possible(Tier.NETNS)

    assert missing.what == f"{name} is not installed"
    assert missing.fix == f"apt install {tiers._PACKAGES[name]}"


@on_linux
@needs_tools
def test_without_nft_the_best_tier_is_bwrap_and_without_bwrap_there_is_none(tools):
    (tools / "nft").unlink()
    without_nft = tiers.best()
    (tools / "bwrap").unlink()

    assert without_nft is Tier.BWRAP
    assert tiers.best() is None


@on_linux
@needs_tools
def test_a_kernel_that_takes_no_table_is_found_out(tools):
    _script(tools / "nft", "echo 'Error: Could not process rule: Protocol not supported' >&2; exit 1")

    (missing,) = tiers.possible(Tier.NETNS)

    assert "Protocol not supported" in missing.what
    assert missing.fix.startswith("modprobe -a nf_tables")


@on_linux
@needs_tools
@pytest.mark.parametrize(("path", "forbidding", "fix"), [
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces="),
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
])
def test_the_setting_that_forbids_user_namespaces_is_named(tools, settings, path, forbidding, fix):
    _script(tools / "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    (settings / path).parent.mkdir(parents=True)
    (settings / path).write_text(f"{forbidding}\n")

    (missing,) = tiers.possible(Tier.BWRAP)

    assert path.replace("/", ".") in missing.what
    assert missing.fix.startswith(fix)


@on_linux
@needs_tools
def test_what_is_forbidden_without_a_setting_is_told_in_the_words_of_who_forbids_it(tools, settings):
    _script(tools / "bwrap", "echo 'bwrap: Creating new namespace failed: Operation not permitted' >&2; exit 1")

    (missing,) = tiers.possible(Tier.BWRAP)

    assert "Creating new namespace failed" in missing.what
    assert "container" in missing.fix


@on_linux
@needs_tools
def test_a_setting_that_forbids_to_others_what_this_user_can_do_is_not_complained_about(settings):
    (settings / "kernel").mkdir(parents=True)
    (settings / "kernel/apparmor_restrict_unprivileged_userns").write_text("1\n")

    assert tiers.possible(Tier.BWRAP) == ()


@on_linux
@needs_tools
def test_a_trial_leaves_nothing_on_the_host():
    before = Path("/proc/net/dev").read_text().count("\n")

    tiers.possible(Tier.NETNS)

    assert Path("/proc/net/dev").read_text().count("\n") == before


@pytest.mark.parametrize(("release", "command"), [
    ("ID=debian", "apt install iproute2"),
    ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"", "apt install iproute2"),
    ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"", "dnf install iproute"),
    ("ID=alpine", "apk add iproute2"),
    ("ID=arch", "pacman -S iproute2"),
    ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"", "zypper install iproute2"),
    ("ID=plan9", "install the package iproute2"),
])
def test_the_command_to_install_is_the_distributions_own(tmp_path, monkeypatch, release, command):
    (tmp_path / "os-release").write_text(release)
    monkeypatch.setattr(tiers, "_OS_RELEASE", tmp_path / "os-release")

    assert tiers.install("ip") == command


def test_where_there_is_no_linux_there_is_advice_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")

    assert tiers.best() is Tier.ENV
    assert [missing.what for missing in tiers.possible(Tier.NETNS)] == ["Linux"]


def test_tools_are_found_that_are_not_on_the_path_of_a_user(monkeypatch):
    monkeypatch.setenv("PATH", "")

    assert tiers.tool("sh") == shutil.which("sh", path=":".join(tiers.TOOL_FOLDERS))
