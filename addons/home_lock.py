"""One Governor a home: the right to serve from it, held for as long as the process lives.

Its processes write lanes of their own, so the locks of lanes would not keep two Governors apart.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from addons import durable
from addons.errors import StartCode, StartRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from addons.home import Paths


@contextlib.contextmanager
def home_lock(paths: Paths) -> Iterator[None]:
    """Serve from the home alone. Raises `StartRefused` (LANE_BUSY) while another Governor does."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(paths.serving, flags, durable.PRIVATE_FILE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = f"another Governor serves from {paths.folder}; stop it, or use another home"
            raise StartRefused(StartCode.LANE_BUSY, text) from None
        yield
    finally:
        os.close(descriptor)
