"""A copy of Governor's tree that a test may change, break or delete."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.e2e.process import ROOT


def copy_of_the_tree(folder: Path) -> Path:
    tree = folder / "tree"
    for name in ("addons", "kernel", "policies", "dashboards"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def mutant(folder: Path, file: str, line: str, replacement: str) -> Path:
    """A copy in which one line of one file is another."""
    tree = copy_of_the_tree(folder)
    before = (tree / file).read_text()
    assert before.count(line) == 1, f"{file} has {line!r} {before.count(line)} times"
    (tree / file).write_text(before.replace(line, replacement))
    return tree
