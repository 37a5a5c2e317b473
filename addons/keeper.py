"""The keeper of a lane: a thread that writes what no request waits for, checkpoints and the vault."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from addons import durable
from kernel.marks import CHECKPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from addons.home import Home
    from addons.journal import Secret
    from addons.vault import Vault

VAULT_SECONDS = 0.5
STOP_SECONDS = 5.0
# Longer than a vault that other lanes use may take. Without its keeper the log would go on and no head be signed.
STALL_SECONDS = 15.0

type _Task = str | list[Secret] | None


class Keeper:
    """Takes notes and secrets from the lane's writer, in order, and never makes it wait."""

    def __init__(
        self, home: Home, lane: str, vault: Vault | None, on_fault: Callable[[str, BaseException], None]
    ) -> None:
        """`on_fault` hears of what could not be written: a `checkpoint`, which ends this keeper, or the `vault`."""
        self._home, self._lane, self._vault, self._on_fault = home, lane, vault, on_fault
        path = home.paths.lane(lane) / CHECKPOINTS
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._notes = os.open(path, flags, durable.PRIVATE_FILE)
        durable.sync_folder(path.parent)
        self._tasks: SimpleQueue[_Task] = SimpleQueue()
        self._secrets: list[Secret] = []
        self._flush_at = 0.0
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"keeper-{lane}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def take_checkpoint(self, checkpoint: str) -> None:
        """Keep a signed note of a head that is durable."""
        self._tasks.put(checkpoint)

    def take_secrets(self, secrets: list[Secret]) -> None:
        """Keep the values behind the commitments of durable entries."""
        if secrets:
            self._tasks.put(secrets)

    @property
    def stalled(self) -> bool:
        """True while a write takes so long that the disk must be taken for lost."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > STALL_SECONDS

    def stop(self) -> None:
        """Write what is left and end, unless the disk does not answer."""
        if self._thread.is_alive():
            self._tasks.put(None)
            self._thread.join(STOP_SECONDS)
            if self._thread.is_alive():
                return
        os.close(self._notes)
        if self._vault is not None:
            self._vault.close()

    def write_checkpoint(self, checkpoint: str) -> None:
        """Keep a note at once; for the thread that has no other beside it."""
        # minimum.json first: after a crash between the two it is ahead of the notes, never behind them.
        self._home.raise_minimum(self._lane, checkpoint)
        durable.write_all(self._notes, checkpoint.encode())
        os.fdatasync(self._notes)

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except BaseException as fault:  # noqa: BLE001
            # Whatever it is: a lane whose keeper ended silently would go on and sign no head any more.
            self._on_fault("checkpoint", fault)

    def _step(self) -> bool:
        try:
            task = self._tasks.get(timeout=max(0.0, self._flush_at - time.monotonic()) if self._secrets else None)
        except Empty:
            task = []
        self._busy_since = time.monotonic()
        self._do(task)
        self._busy_since = None
        return task is not None

    def _do(self, task: _Task) -> None:
        if isinstance(task, str):
            self.write_checkpoint(task)
        elif task:
            if not self._secrets:
                self._flush_at = time.monotonic() + VAULT_SECONDS
            self._secrets += task
        if self._secrets and (task is None or time.monotonic() >= self._flush_at):
            self._flush()

    def _flush(self) -> None:
        secrets, self._secrets = self._secrets, []
        if self._vault is None:
            return
        try:
            self._vault.keep(self._lane, secrets)
        except (sqlite3.Error, OSError) as fault:
            # The log stands without the vault; its commitments of this time can then not be opened again.
            self._vault.close()
            self._vault = None
            self._on_fault("vault", fault)
