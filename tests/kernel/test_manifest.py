"""The manifest of a bundle reads back as it was written, and no other text is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import note
from kernel.errors import NoteError
from kernel.manifest import Manifest, Part, Period, split_manifest
from tests.logs import LOG_ID, Key, verify_signature

STAMPS = st.none() | st.just("2026-01-02T03:04:05.000006Z") | st.text(max_size=30)
PERIODS = st.builds(Period, STAMPS, STAMPS)
LANES = st.dictionaries(st.from_regex(r"[a-z0-9][a-z0-9-]{0,9}", fullmatch=True),
                        st.builds(Part, st.integers(0, 999_999), st.none() | st.integers(1, 2**53 - 1)), max_size=4)
ALL = st.builds(Manifest, st.just(LOG_ID), st.just("ab" * 32), st.integers(0, 10**12), PERIODS, PERIODS,
                      st.none() | st.text(max_size=20), LANES)
MANIFESTS = ALL.filter(lambda each: all((part.first == 0 or each.requested.start is not None) and
                                        (part.end is None or each.requested.end is not None)
                                        for part in each.lanes.values()))
KEY = Key(note.lane_name(LOG_ID, "cli"))
ONE = Manifest(LOG_ID, "ab" * 32, 123, Period("2026-01-02T03:04:05.000006Z", "c"), Period("a", "b"), "coder",
               {"main": Part(3, 20), "w0": Part()})


@given(MANIFESTS)
def test_what_is_written_is_read(manifest):
    signed = note.sign(manifest.body(), KEY.verifier.name, KEY.verifier.public, KEY.sign)

    assert split_manifest(manifest.unsigned()) == (manifest, False)
    assert split_manifest(signed) == (manifest, True)
    assert note.open_note(signed, [KEY.verifier], verify_signature) == manifest.body()


def test_every_bit_of_an_unsigned_one_that_is_flipped_is_refused():
    text = ONE.unsigned().encode()
    for place in range(len(text)):
        for bit in range(8):
            other = text[:place] + bytes([text[place] ^ 1 << bit]) + text[place + 1 :]

            with pytest.raises(NoteError):
                split_manifest(other.decode(errors="replace"))


@given(st.text(max_size=200) | st.builds(lambda a, b: ONE.body()[:a] + b, st.integers(0, 300), st.text(max_size=40)))
def test_any_other_text_is_refused(text):
    with pytest.raises(NoteError):
        split_manifest(text)


@pytest.mark.parametrize("change", [
    ('"first":3', '"first":-1'), ('"first":3', '"first":1000000'), ('"first":3', '"first":true'),
    ('"end":20', '"end":0'), ('"until":"c"', '"until":null'),
    ('"since":"2026-01-02T03:04:05.000006Z"', '"since":null'),
    ('"end":20', '"end":"x"'), ('"w0"', '"../w0"'), ('"agent":"coder"', '"agent":7'), ('"since":', '"Since":'),
    ('"to":"b"', '"to":7'), ('{"agent"', '{"aa":1,"agent"'), ('{"agent"', '{ "agent"'), ("SHA256SUMS", "SUMS"),
    (LOG_ID, "../../etc/passwd"), ("/bundle", "/main"),
])
def test_a_field_that_is_none_is_refused(change):
    body = ONE.body().replace(*change)
    assert body != ONE.body()

    with pytest.raises(NoteError):
        split_manifest(f"{body}\n— {KEY.verifier.name} c2ln\n")
