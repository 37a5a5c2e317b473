"""Bodies without their content codings: the right bytes or a fixed reason, in bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from addons.decoding import MAX_MEMBERS, Bounds, Reason, Undecodable, decoded, pieces
from tests.conftest import scaled

ROOT = Path(__file__).resolve().parents[2]
TEXT = b'{"who": "example.org", "what": "a body like many"}' * 50
BOUNDS = Bounds(max_bytes=1024 * 1024)


def bare_deflate(content: bytes) -> bytes:
    state = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return state.compress(content) + state.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress}
EACH = pytest.mark.parametrize("encoding", list(ENCODERS))


def reason(content: bytes, encoding: str, bounds: Bounds = BOUNDS) -> Reason:
    with pytest.raises(Undecodable) as refused:
        decoded(content, encoding, bounds)
    return refused.value.reason


@EACH
@pytest.mark.parametrize("content", [TEXT, b"", b"x", bytes(200_000)], ids=["text", "empty", "byte", "zeros"])
def test_what_was_encoded_comes_out_again(encoding: str, content: bytes) -> None:
    assert decoded(ENCODERS[encoding](content), encoding, BOUNDS) == content


@given(st.binary(max_size=50_000), st.sampled_from([*ENCODERS, "identity"]), st.integers(1, 2_000))
def test_the_pieces_in_which_a_body_arrives_make_no_difference(content: bytes, encoding: str, size: int) -> None:
    encoded = ENCODERS.get(encoding, bytes)(content)
    chunks = [encoded[start:start + size] for start in range(0, len(encoded), size)]

    assert b"".join(pieces(chunks, encoding, BOUNDS)) == content


@pytest.mark.parametrize("encoding", ["", "identity", " Identity , ,"])
def test_what_is_not_encoded_comes_out_as_it_is(encoding: str) -> None:
    assert decoded(TEXT, encoding, BOUNDS) == TEXT


@pytest.mark.parametrize("encoding", ["GZIP", " gzip\t", "x-gzip", "identity, gzip", ",gzip,"])
def test_a_coding_is_known_in_every_spelling_of_the_standard(encoding: str) -> None:
    assert decoded(gzip.compress(TEXT), encoding, BOUNDS) == TEXT


def test_deflate_is_read_with_and_without_the_zlib_frame() -> None:
    assert decoded(bare_deflate(TEXT), "deflate", BOUNDS) == TEXT == decoded(zlib.compress(TEXT), "deflate", BOUNDS)


def test_two_layers_are_taken_off_in_the_order_opposite_to_the_header() -> None:
    assert decoded(brotli.compress(gzip.compress(TEXT)), "gzip, br", BOUNDS) == TEXT


def test_a_third_layer_is_too_deep() -> None:
    content = gzip.compress(gzip.compress(gzip.compress(TEXT)))

    assert reason(content, "gzip, gzip, gzip") is Reason.TOO_DEEP


@pytest.mark.parametrize("encoding", ["br, br", "zstd, zstd", "br, zstd"])
def test_two_layers_with_large_windows_are_too_deep(encoding: str) -> None:
    assert reason(b"", encoding) is Reason.TOO_DEEP


def test_a_list_of_endless_length_is_too_deep_and_is_not_looked_at() -> None:
    assert reason(TEXT, "identity," * 100_000) is Reason.TOO_DEEP


@pytest.mark.parametrize("encoding", ["aes128gcm", "compress", "gzip, lzma", "gzip;q=1", "gzip br", "гзип"])
def test_a_coding_that_is_not_known_is_named_so(encoding: str) -> None:
    assert reason(TEXT, encoding) is Reason.UNKNOWN_ENCODING


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_complete_streams_in_a_row_are_one_body(encoding: str) -> None:
    row = b"".join(ENCODERS[encoding](part) for part in (TEXT, b"", b"the end"))

    assert decoded(row, encoding, BOUNDS) == TEXT + b"the end"
    assert b"".join(pieces((row[index:index + 1] for index in range(len(row))), encoding, BOUNDS)) == TEXT + b"the end"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_row_of_very_many_streams_is_too_deep(encoding: str) -> None:
    row = ENCODERS[encoding](b"") * (MAX_MEMBERS + 1)

    assert reason(row, encoding) is Reason.TOO_DEEP


def test_a_zstd_frame_that_readers_skip_is_skipped() -> None:
    skipped = b"\x53\x2a\x4d\x18\x03\x00\x00\x00abc"

    assert decoded(skipped + zstandard.compress(TEXT), "zstd", BOUNDS) == TEXT


@EACH
def test_a_body_whose_end_is_missing_is_corrupt(encoding: str) -> None:
    encoded = ENCODERS[encoding](TEXT)

    assert {reason(encoded[:size], encoding) for size in range(1, len(encoded))} == {Reason.CORRUPT}


@EACH
def test_bytes_after_the_end_are_refused(encoding: str) -> None:
    encoded = ENCODERS[encoding](TEXT)

    assert reason(encoded + b"\0", encoding) in {Reason.TRAILING_GARBAGE, Reason.CORRUPT}
    with pytest.raises(Undecodable) as refused:
        list(pieces((encoded, b"GET / HTTP/1.1"), encoding, BOUNDS))
    assert refused.value.reason is Reason.TRAILING_GARBAGE


@EACH
def test_a_body_that_was_never_encoded_is_corrupt(encoding: str) -> None:
    assert reason(b"plain text", encoding) is Reason.CORRUPT


def test_a_gzip_body_whose_checksum_is_wrong_is_corrupt() -> None:
    encoded = bytearray(gzip.compress(TEXT))
    encoded[-5] ^= 1

    assert reason(bytes(encoded), "gzip") is Reason.CORRUPT


@EACH
@given(content=st.binary(max_size=3_000))
def test_any_bytes_are_decoded_or_refused_with_a_reason(encoding: str, content: bytes) -> None:
    with contextlib.suppress(Undecodable):
        decoded(content, encoding, BOUNDS)


@EACH
@given(data=st.data())
def test_any_damage_is_decoded_or_refused_with_a_reason(encoding: str, data: st.DataObject) -> None:
    damaged = bytearray(ENCODERS[encoding](TEXT))
    for index in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=4)):
        damaged[index] = data.draw(st.integers(0, 255))

    with contextlib.suppress(Undecodable):
        assert len(decoded(bytes(damaged), encoding, BOUNDS)) <= BOUNDS.max_bytes


@pytest.mark.parametrize("encoding", ["", *ENCODERS])
def test_a_body_of_the_largest_size_passes_and_one_byte_more_does_not(encoding: str) -> None:
    encode = ENCODERS.get(encoding, bytes)

    assert len(decoded(encode(TEXT), encoding, Bounds(len(TEXT)))) == len(TEXT)
    assert reason(encode(TEXT + b"x"), encoding, Bounds(len(TEXT))) is Reason.TOO_LARGE


@EACH
def test_a_body_that_grows_too_much_is_refused_before_it_reaches_the_largest_size(encoding: str) -> None:
    bomb = ENCODERS[encoding](bytes(8 * 1024 * 1024))

    assert reason(bomb, encoding, Bounds(max_bytes=2**40, max_ratio=200)) is Reason.TOO_LARGE
    assert len(decoded(bomb, encoding, Bounds(max_bytes=2**40, max_ratio=10**9))) == 8 * 1024 * 1024


@EACH
def test_a_bomb_inside_a_layer_is_stopped(encoding: str) -> None:
    bomb = gzip.compress(ENCODERS[encoding](bytes(8 * 1024 * 1024)))

    assert reason(bomb, f"{encoding}, gzip") is Reason.TOO_LARGE


def test_what_a_refused_bomb_takes_in_python_objects_is_a_few_pieces() -> None:
    bombs = [(encoding, encode(bytes(16 * 1024 * 1024))) for encoding, encode in ENCODERS.items()]

    tracemalloc.start()
    try:
        for encoding, bomb in bombs:
            assert reason(bomb, encoding) is Reason.TOO_LARGE
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


WRITE_BOMB = """
import sys, zlib, brotli, zstandard

def state(encoding):
    if encoding == "br":
        state = brotli.Compressor(quality=5, lgwin=24)
        return state.process, state.finish
    if encoding == "zstd":
        parameters = zstandard.ZstdCompressionParameters(compression_level=3, window_log=23)
        state = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    else:
        state = zlib.compressobj(1, wbits=31 if encoding == "gzip" else 15)
    return state.compress, state.flush

content = (bytes(1 << 20) for _ in range(int(sys.argv[1])))
for encoding in sys.argv[2].split(", "):
    feed, end = state(encoding)
    content = [b"".join(map(feed, content)) + end()]
open(sys.argv[3], "wb").write(content[0])
"""
MEASURE = """
import sys
from addons.decoding import Bounds, pieces

def peak_kib():
    # What getrusage says begins with the size of the process that started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

content = open(sys.argv[2], "rb").read()
before = peak_kib()
produced = sum(map(len, pieces((content,), sys.argv[1], Bounds(2**40, 10**9))))
print(produced, peak_kib() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("encoding", [*ENCODERS, "gzip, br", "zstd, gzip"])
def test_a_bomb_that_may_unfold_takes_less_than_32_mib(encoding: str, tmp_path: Path) -> None:
    """Even where nothing stops it: here the bounds allow everything, and the body is much larger than what it takes."""
    bomb, megabytes = tmp_path / "bomb", 64 * scaled(1)
    subprocess.run([sys.executable, "-c", WRITE_BOMB, str(megabytes), encoding, str(bomb)], check=True, cwd=ROOT)
    measured = subprocess.run([sys.executable, "-c", MEASURE, encoding, str(bomb)], check=True, cwd=ROOT,
                              capture_output=True, text=True).stdout
    produced, grown = map(int, measured.split())

    assert produced == megabytes * 1024 * 1024
    assert 0 < grown < 32 * 1024
