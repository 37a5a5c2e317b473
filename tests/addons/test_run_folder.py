"""Folders of runs: where no other run's command sees them, gone with their run, and swept after a kill."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from addons.sandbox import run_folder as module
from addons.sandbox.run_folder import NoRunFolder, living, run_folder, swept

ROOT = Path(module.__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def parent(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(module, "_SYSTEM", tmp_path / "none")
    monkeypatch.setattr(module, "_OF_USERS", tmp_path / "none")
    return tmp_path / f"governor-runs-{os.geteuid()}"


def test_a_folder_that_others_can_read_is_gone_at_the_end_and_nothing_is_left_of_its_parent(parent):
    with run_folder() as folder:
        assert folder.parent == parent
        assert folder.stat().st_mode & 0o777 == 0o755
        # Nobody else could hold the lock for which runs wait.
        assert parent.stat().st_mode & 0o777 == 0o711

    assert not folder.exists()
    assert not parent.exists()


def test_what_a_killed_run_left_behind_is_swept_and_what_is_needed_stays(parent):
    program = ("import os, sys; from pathlib import Path; from addons.sandbox import run_folder as module\n"
               "module._SYSTEM = module._OF_USERS = Path('/none'); module.tempfile.tempdir = sys.argv[1]\n"
               "with module.run_folder() as folder: print(folder, flush=True); os.kill(os.getpid(), 9)")
    killed = subprocess.run([sys.executable, "-c", program, str(parent.parent)], cwd=ROOT, capture_output=True,
                            text=True, check=False)
    left = Path(killed.stdout.strip())
    assert left.exists()

    with run_folder() as first, run_folder() as second:
        assert first.exists()
        assert second.exists()
        assert not left.exists()


@pytest.mark.parametrize("prepare", [
    pytest.param(lambda parent: parent.symlink_to(parent.parent), id="a link of somebody's"),
    pytest.param(lambda parent: (parent.mkdir(), parent.chmod(0o777)), id="a folder that others can write"),
    pytest.param(lambda parent: parent.touch(), id="a file"),
])
def test_a_parent_that_somebody_else_could_have_made_is_not_used(parent, prepare):
    prepare(parent)

    with pytest.raises(NoRunFolder, match=str(parent)), run_folder():
        pass


def test_what_is_no_folder_of_ours_is_left_alone(tmp_path):
    runs, other = tmp_path / "runs", tmp_path / "elsewhere"
    runs.mkdir()
    other.mkdir()
    (runs / "link").symlink_to(other)
    (runs / "file").touch()

    with swept(runs):
        assert other.exists()
        assert (runs / "file").exists()


def test_what_is_needed_stays_and_what_was_half_removed_when_its_process_was_killed_goes(tmp_path):
    for name in ("needed", "half-removed/trust"):
        (tmp_path / "runs" / name).mkdir(parents=True)

    with living(tmp_path / "runs" / "needed"), swept(tmp_path / "runs"):
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["needed"]
