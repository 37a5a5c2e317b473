"""What lies beside Governor's code, read from where that is installed: a folder, or an archive."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import addons
import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

ROOT = Path(__file__).parent.parent
"""The folder that holds `addons`, `kernel` and `policies`; within an archive only a name for it."""


class _Loader(Protocol):
    """What Python's loaders of folders and of archives have in common."""

    def get_data(self, path: str) -> bytes: ...


def content(path: Path) -> bytes:
    """The bytes of a file below `ROOT`; OSError where it is not there."""
    return cast("_Loader", addons.__loader__).get_data(str(path))


def kernel_sources() -> Iterator[tuple[str, bytes]]:
    """The modules of the kernel by their path in it, in its order: what its digest is made of."""
    return _sources(resources.files(kernel), "")


def _sources(folder: Traversable, above: str) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.is_dir():
            yield from _sources(file, f"{above}{file.name}/")
        elif file.name.endswith(".py"):
            yield f"{above}{file.name}", file.read_bytes()
