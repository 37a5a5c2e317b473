"""What the tree itself promises: names that shadow nothing, nothing of one machine, a README in every folder."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {
    "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "requirements.lock", ".gitignore", ".github", ".ci",
    "addons", "kernel", "policies", "certs", "dashboards", "tests", "scripts",
}
# Written in halves, so that this file does not hold what it looks for.
_REGISTRY_HALVES = (
    ("pypi", ".org"), ("pythonhosted", ".org"), ("npmjs", ".org"), ("npmjs", ".com"), ("yarnpkg", ".com"),
    ("crates", ".io"), ("rubygems", ".org"), ("golang", ".org"), ("debian", ".org"), ("ubuntu", ".com"),
    ("maven", ".org"), ("packagist", ".org"), ("nuget", ".org"), ("jsr", ".io"),
)
REGISTRY = re.compile(rf"(?<![\w-])(?:{'|'.join(re.escape(first + second) for first, second in _REGISTRY_HALVES)})")
MACHINE_PATH = re.compile(r"(?<![\w.$}~-])/(?:home|root|work|Users|tmp/gov)/[\w.]")
# The kernel computes. What is not here has a clock, files, a network, threads, chance or a log.
KERNEL_MAY_IMPORT = {
    "__future__", "array", "base64", "binascii", "bisect", "blake3", "collections", "contextlib", "copy",
    "dataclasses", "datetime", "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "hmac",
    "ipaddress",
    "itertools", "json", "kernel", "math", "operator", "pydantic",
    "re", "string", "struct", "types", "typing", "unicodedata", "urllib.parse",
}
# What lies below is data that one README describes.
VECTORS = Path("tests/vectors")
# The calls of those modules that are not pure after all, and the builtins that are not.
IMPURE_CALLS = {"now", "utcnow", "today", "open", "print", "input", "exec", "eval", "__import__"}
HOME_OF_LIBRARY = {
    "yaml": {"addons/yaml_nodes.py"},
    "prometheus_client": {"addons/metrics.py"},
    "boto3": {"addons/anchors/bucket.py"},
    "botocore": {"addons/anchors/bucket.py"},
    "redis": {"addons/pools/server.py"},
}


def _files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def _texts() -> list[tuple[Path, str]]:
    texts = []
    for file in _files():
        content = (ROOT / file).read_bytes()
        if b"\0" not in content:
            texts.append((file, content.decode()))
    return texts


def _imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_the_top_level_holds_what_the_design_names_and_nothing_else():
    assert {file.parts[0] for file in _files()} <= TOP_LEVEL


def test_no_file_in_addons_has_the_name_of_a_module_that_somebody_else_owns():
    ours = {path.stem for path in (ROOT / "addons").iterdir() if path.suffix == ".py" or path.is_dir()}
    others = set(sys.stdlib_module_names) | set(packages_distributions())

    assert ours & others <= {"__init__", "__pycache__"}


def test_no_package_registry_is_named_anywhere():
    found = [f"{file}: {match[0]}" for file, text in _texts() for match in REGISTRY.finditer(text)]

    assert found == []


def test_no_path_of_one_machine_stands_anywhere():
    found = [f"{file}:{number}" for file, text in _texts() for number, line in enumerate(text.splitlines(), 1)
             if MACHINE_PATH.search(line)]

    assert found == []


def test_every_folder_says_what_lives_in_it():
    folders = {parent for file in _files() for parent in file.parents
               if not str(parent).startswith(".") and VECTORS not in parent.parents}

    assert sorted(str(folder) for folder in folders if not (ROOT / folder / "README.md").is_file()) == []


def test_the_kernel_imports_only_what_computes():
    found = {f"{file}: {name}" for file in _files() if file.parts[0] == "kernel" and file.suffix == ".py"
             for name in _imports(file) if not {name, name.split(".")[0]} & KERNEL_MAY_IMPORT}

    assert found == set()


def test_the_kernel_asks_neither_the_clock_nor_the_world():
    found = []
    for file in _files():
        if file.parts[0] != "kernel" or file.suffix != ".py":
            continue
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in IMPURE_CALLS:
                    found.append(f"{file}:{node.lineno}: {name}()")

    assert found == []


@pytest.mark.parametrize("library", sorted(HOME_OF_LIBRARY))
def test_a_library_is_imported_in_one_place(library):
    importers = {str(file) for file in _files() if file.parts[0] in ("addons", "kernel") and file.suffix == ".py"
                 for name in _imports(file) if name.split(".")[0] == library}

    assert importers == HOME_OF_LIBRARY[library]
