"""Folders of runs: gone with them, and swept after a kill."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from addons.sandbox import run_folder as module
from addons.sandbox.run_folder import living, run_folder, sweep

ROOT = Path(module.__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_that_others_can_read_is_gone_at_the_end():
    with run_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o755

    assert not folder.exists()


def test_what_a_killed_run_left_behind_is_swept_and_what_is_needed_stays(tmp_path):
    program = ("import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
               "from addons.sandbox.run_folder import run_folder\n"
               "with run_folder() as folder: print(folder, flush=True); os.kill(os.getpid(), 9)")
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True,
                            check=False)
    left = Path(killed.stdout.strip())
    assert left.exists()

    with run_folder() as first, run_folder() as second:
        assert first.exists()
        assert second.exists()
        assert not left.exists()


def test_what_is_no_folder_of_ours_is_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    other = tmp_path / "elsewhere"
    other.mkdir()
    with living(other):
        pass
    (tmp_path / "run-link").symlink_to(other)

    sweep(tmp_path, "run-")
    sweep(tmp_path, "a")

    assert other.exists()
    assert (tmp_path / "a").exists()
