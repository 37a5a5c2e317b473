"""What is decoded beside an answer is what the whole answer decodes to, in whatever pieces it comes."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from addons.decoding import Bounds, Undecodable, decoded
from addons.unpacking import Unpacking

PACKED = {
    "": bytes, "gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress, "gzip, br": lambda content: brotli.compress(gzip.compress(content)),
    "x-gzip": lambda content: gzip.compress(content[:5]) + gzip.compress(content[5:]),
    "Deflate": lambda content: zlib.compress(content, wbits=-15),
}  # fmt: skip


@pytest.mark.parametrize("coding", list(PACKED))
@given(content=st.binary(max_size=300), data=st.data())
def test_pieces_decode_to_the_whole(coding: str, content: bytes, data: st.DataObject) -> None:
    packed, unpacking = PACKED[coding](content), Unpacking(coding)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(packed)), max_size=6))), len(packed)]
    pieces = (packed[begin:end] for begin, end in pairwise(cuts))

    assert b"".join(each for piece in pieces for each in unpacking.take(piece)) == content
    assert decoded(packed, coding, Bounds(1000)) == content


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_what_was_flushed_is_given_at_once(coding: str) -> None:
    """An event must not wait for the end of a block that goes on."""
    if coding == "br":
        packer = brotli.Compressor()
        packed = packer.process(b"data: 1\n\n") + packer.flush()
    elif coding == "zstd":
        made = zstandard.ZstdCompressor().compressobj()
        packed = made.compress(b"data: 1\n\n") + made.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    else:
        stream = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
        packed = stream.compress(b"data: 1\n\n") + stream.flush(zlib.Z_SYNC_FLUSH)

    assert b"".join(Unpacking(coding).take(packed)) == b"data: 1\n\n"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_is_given_up(coding: str) -> None:
    with pytest.raises(Undecodable):
        list(Unpacking(coding).take(PACKED[coding](bytes(2**24))))


def test_what_is_not_known_or_not_sound_is_given_up() -> None:
    with pytest.raises(Undecodable):
        Unpacking("never-heard-of")
    with pytest.raises(Undecodable):
        list(Unpacking("gzip").take(b"not gzip at all"))
