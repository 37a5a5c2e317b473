"""What keeps a command from being executed, told before anything is made for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from addons.sandbox.executable import Unstartable, unstartable


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    files = {"first/tool": 0o644, "second/tool": 0o755, "first/plain": 0o644, "second/folder/x": 0o755}
    for name, mode in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "first" / "dangling").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize(("name", "said"), [
    pytest.param("tool", None, id="one that is executable comes later on PATH"),
    pytest.param("none", Unstartable(127, "none: command not found"), id="on no folder of PATH"),
    pytest.param("", Unstartable(127, ": command not found"), id="no name"),
    pytest.param("plain", Unstartable(126, "{}/first/plain: not executable"), id="not executable"),
    pytest.param("folder", Unstartable(126, "{}/second/folder: a folder"), id="a folder"),
    pytest.param("dangling", Unstartable(127, "{}/first/dangling: no such file"), id="a link to nothing"),
    pytest.param("{}/second/tool", None, id="a path"),
    pytest.param("{}/second/none", Unstartable(127, "{}/second/none: no such file"), id="a path to nothing"),
])
def test_a_command_is_found_or_told_why_not(folders: Path, name: str, said: Unstartable | None) -> None:
    told = unstartable(name.format(folders), f"{folders}/first:{folders}/second")

    assert told == (said and Unstartable(said.status, said.text.format(folders)))
