"""Content codings taken off an answer beside its way, piece by piece as it passes, in bounded memory and work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons.decoding import Reason, Undecodable, layers_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from addons.decoding import Layer

# A bomb costs whoever looks on no more than this; text that repeats itself shrinks to a hundredth.
_FREE_BYTES, _MOST_RATIO = 2**20, 200
_PIECE_BYTES = 16 * 1024


class Unpacking:
    """Of one answer."""

    def __init__(self, content_encoding: str) -> None:
        """Raises `Undecodable`, as `take` does, where the codings are none that are known here."""
        self._layers = layers_of(content_encoding)
        self._taken = self._given = 0

    def take(self, chunk: bytes) -> Iterator[bytes]:
        """What a piece of the answer gives."""
        self._taken += len(chunk)
        pieces: Iterable[bytes] = (chunk[at:at + _PIECE_BYTES] for at in range(0, len(chunk), _PIECE_BYTES))
        for layer in self._layers:
            pieces = _through(layer, pieces)
        for piece in pieces:
            self._given += len(piece)
            if self._given > max(_FREE_BYTES, self._taken * _MOST_RATIO):
                raise Undecodable(Reason.TOO_LARGE)
            yield piece


def _through(layer: Layer, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from layer.take(piece)
