"""The way of a worker to wake the others: something has changed that they are to look at, at once."""

from __future__ import annotations

from collections.abc import Callable


class Siblings:
    """The other workers. Alone there are none, and nobody is woken."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], object]] = []
        self._send: Callable[[], object] | None = None

    def reach_by(self, send: Callable[[], object]) -> None:
        """Have `send` called, from any thread, to wake the others."""
        self._send = send

    def poke(self) -> None:
        """Wake every other worker. For any thread; it returns at once."""
        if self._send is not None:
            self._send()

    def on_poke(self, callback: Callable[[], object]) -> None:
        """Have `callback` called on the event loop when another worker pokes."""
        self._callbacks.append(callback)

    def poked(self) -> None:
        """Another worker has poked."""
        for callback in self._callbacks:
            callback()
