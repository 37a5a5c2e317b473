"""governor-audit.pyz: the part of Governor that verifies and replays logs, as one file that a plain Python runs.

It is made from the files that are installed here. It holds the kernel, the adapters that `audit_alone.py` imports, the
data tables of policies, and the package that reads YAML, in its own language and with its licence.
"""

from __future__ import annotations

import ast
import io
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from addons.shipped import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "governor-audit.pyz"
_ENTRY = "addons.audit_alone"
_START = ROOT / "addons" / "audit_start.py"
_YAML = "pyyaml"
_SHEBANG = b"#!/usr/bin/env python3\n"
# The first moment that the format can tell.
_MOMENT = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644 << 16


def build() -> bytes:
    """The whole file. The same installation makes the same bytes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for name, path in sorted(files().items()):
            # Stored, not deflated: what deflate writes differs between builds of zlib.
            member = zipfile.ZipInfo(name, _MOMENT)
            member.external_attr = _MODE
            packed.writestr(member, path.read_bytes())
    return _SHEBANG + archive.getvalue()


def files() -> dict[str, Path]:
    """What is packed: the name of each file in the archive, and where it lies here."""
    ours = [*_modules(), *(ROOT / "kernel").rglob("*.py"), *(ROOT / "policies" / "data").glob("*.*")]
    named = {path.relative_to(ROOT).as_posix(): path for path in ours}
    return named | dict(_yaml()) | {"__main__.py": _START}


def _modules() -> set[Path]:
    """The adapters that the entry point imports, now or when a verb runs."""
    found, due = set[Path](), {"addons", _ENTRY}
    while due:
        path = _source(due.pop())
        if path is not None and path not in found:
            found.add(path)
            due.update(_imported(path))
    return found


def _source(module: str) -> Path | None:
    """The file of one of our adapters; None for what is none."""
    if module.split(".", maxsplit=1)[0] != "addons":
        return None
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imported(path: Path) -> Iterator[str]:
    """The names that a module imports, but for those that only a type checker follows."""
    due: list[ast.AST] = [ast.parse(path.read_bytes())]
    while due:
        match due.pop():
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                # Whoever imports a module also runs the packages that it lies in.
                parts = module.split(".")
                yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))
                yield from (f"{module}.{alias.name}" for alias in names)
            case node:
                due.extend(ast.iter_child_nodes(node))


def _yaml() -> Iterator[tuple[str, Path]]:
    for file in metadata.distribution(_YAML).files or ():
        if file.parts[0] == "yaml" and file.suffix == ".py":
            yield file.as_posix(), Path(str(file.locate()))
        elif file.name == "LICENSE":
            yield "yaml/LICENSE", Path(str(file.locate()))
