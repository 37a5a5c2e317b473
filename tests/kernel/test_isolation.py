"""The kernel is a function of its arguments: import-linter sees whatever else it could reach, also through others."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).parents[2]
# None of these reaches beyond its arguments, but for `datetime.now` and its like.
VALUES = frozenset({
    "__future__", "array", "base64", "binascii", "bisect", "blake3", "collections", "contextlib", "copy", "dataclasses",
    "datetime", "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "ipaddress", "itertools",
    "json", "kernel", "operator", "re", "struct", "typing", "unicodedata",
})
REACHING = frozenset({"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"})
CLOCKS = frozenset({"datetime.now", "datetime.today", "datetime.utcnow", "date.today"})


@pytest.fixture
def copied(tmp_path):
    """The sources and their contracts, where they may be changed."""
    for folder in ("kernel", "addons"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder):
    """What import-linter says of the contract on the kernel's purity, with its exit status."""
    command = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run([command, "--no-logo", "--no-cache", "--contract", "pure-kernel"], cwd=folder, text=True,
                         capture_output=True, timeout=60, env={**os.environ, "COLUMNS": "200"})
    return ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize(("files", "chain"), [
    pytest.param({"state.py": "import time"}, "kernel.state -> time", id="a clock"),
    pytest.param({"step.py": "import random"}, "kernel.step -> random", id="chance"),
    pytest.param({"step.py": "from threading import Thread"}, "kernel.step -> threading", id="a thread"),
    pytest.param({"bounds.py": "import socket"}, "kernel.bounds -> socket", id="the network"),
    pytest.param({"contracts.py": "from pathlib import Path"}, "kernel.contracts -> pathlib", id="files"),
    pytest.param({"arithmetic.py": "def now():\n    import time\n    return time.time()"}, "kernel.arithmetic -> time",
                 id="an import within a function"),
    pytest.param({"contracts.py": "import addons.codec"}, "kernel.contracts -> addons.codec", id="an adapter"),
    pytest.param({"state.py": "import kernel.near", "near.py": "import kernel.far", "far.py": "import secrets"},
                 "kernel.far -> secrets", id="through two others"),
])
def test_a_kernel_that_reaches_the_world_is_refused(copied, files, chain):
    for name, line in files.items():
        with (copied / "kernel" / name).open("a") as file:
            file.write(f"\n{line}\n")
    status, said = lint(copied)

    assert status == 1
    assert chain in said


def test_the_kernel_as_it_is_reaches_nothing(copied):
    assert lint(copied)[0] == 0


def nodes(kind):
    for path in sorted((ROOT / "kernel").rglob("*.py")):
        yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kind))


def test_the_kernel_imports_nothing_but_values():
    """What the contract forbids is a list of what is known to reach the world; this is one of what does not."""
    plain = {alias.name for node in nodes(ast.Import) for alias in node.names}
    named = {node.module for node in nodes(ast.ImportFrom)}

    assert {name.partition(".")[0] for name in plain | named} <= VALUES


def test_the_kernel_calls_nothing_that_reads_a_clock_or_a_file():
    called = {ast.unparse(node.func) for node in nodes(ast.Call)}

    assert not called & (REACHING | CLOCKS)
