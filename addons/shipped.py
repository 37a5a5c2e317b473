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
    """The modules at the top of the kernel, by name and in its order: what its digest is made of."""
    folder: Traversable = resources.files(kernel)
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            yield file.name, file.read_bytes()
