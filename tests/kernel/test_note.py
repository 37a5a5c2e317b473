"""Signed notes, checkpoints and verifier keys as C2SP writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import NoteError
from kernel.note import (
    checkpoint_body,
    open_note,
    parse_checkpoint,
    parse_verifier_key,
    sign,
    split_notes,
    verifier_key,
)
from tests.logs import Key, verify_signature

MAIN = Key("governor/00112233445566ff/main")
WITNESS = Key("witness.example.org/w1")
ROOT = bytes(range(32))
BODY = checkpoint_body(MAIN.verifier.name, 42, ROOT)
NOTE = sign(BODY, MAIN.verifier.name, MAIN.verifier.public, MAIN.sign)
COSIGNED = NOTE + sign(BODY, WITNESS.verifier.name, WITNESS.verifier.public, WITNESS.sign).rpartition("\n\n")[2]


def test_a_published_verifier_key_is_read() -> None:
    # The example key of the C2SP signed-note format.
    text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"

    key = parse_verifier_key(text)

    assert (key.name, key.kid, str(key)) == ("PeterNeumann", "c74f20a3", text)


def test_a_published_note_verifies() -> None:
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    key = parse_verifier_key("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")

    assert open_note(text, [key], verify_signature).startswith("If you think")


def test_a_checkpoint_is_three_lines_and_comes_back() -> None:
    assert BODY == "governor/00112233445566ff/main\n42\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"

    head = parse_checkpoint(open_note(NOTE, [MAIN.verifier], verify_signature))

    assert (head.origin, head.size, head.root) == (MAIN.verifier.name, 42, ROOT)


def test_signatures_of_unknown_keys_are_ignored() -> None:
    assert open_note(COSIGNED, [MAIN.verifier], verify_signature) == BODY
    assert open_note(COSIGNED, [WITNESS.verifier], verify_signature) == BODY


def test_a_note_without_a_known_key_is_refused() -> None:
    with pytest.raises(NoteError, match="no signature"):
        open_note(NOTE, [WITNESS.verifier], verify_signature)


def test_one_bad_signature_of_a_known_key_refuses_the_note() -> None:
    other = sign(BODY.replace("42", "43"), WITNESS.verifier.name, WITNESS.verifier.public, WITNESS.sign)
    forged = NOTE + other.rpartition("\n\n")[2]

    with pytest.raises(NoteError, match="does not verify"):
        open_note(forged, [MAIN.verifier, WITNESS.verifier], verify_signature)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("text\n", id="no signature"),
        pytest.param("\n\n", id="no text"),
        pytest.param(NOTE[:-1], id="no last line feed"),
        pytest.param(NOTE.replace("— ", "- "), id="a hyphen for the dash"),
        pytest.param(NOTE.replace("42", "4\t2"), id="a tab"),
        pytest.param(NOTE.replace("\n\n", "\n"), id="no empty line"),
        pytest.param(NOTE[:-6] + "\n", id="half a signature"),
        pytest.param(NOTE + "\n", id="an empty line more"),
    ],
)
def test_what_is_not_a_signed_note_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        open_note(text, [MAIN.verifier], verify_signature)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("origin\n1\n", id="no root"),
        pytest.param(BODY + "extension\n", id="extension line"),
        pytest.param(BODY[:-1], id="no last line feed"),
        pytest.param(BODY.replace("42", "042"), id="leading zero"),
        pytest.param(BODY.replace("42", "-1"), id="negative"),
        pytest.param(BODY.replace("42", "\u0664\u0662"), id="digits of another script"),
        pytest.param(BODY.replace("Hh8=", "Hh9="), id="unused bits of base64"),
        pytest.param(BODY.replace("Hh8=", "Hg=="), id="31 bytes"),
        pytest.param("\n" + BODY.split("\n", 1)[1], id="no origin"),
    ],
)
def test_what_is_not_a_checkpoint_is_refused(body: str) -> None:
    with pytest.raises(NoteError):
        parse_checkpoint(body)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("name+00000000+AAAA", id="short"),
        pytest.param(str(MAIN.verifier).replace("/main", "/w0"), id="the key id of another name"),
        pytest.param(verifier_key("a b", MAIN.verifier.public), id="space in the name"),
        pytest.param(str(MAIN.verifier)[:-2], id="cut"),
        pytest.param("name+00000000+\ud800", id="surrogate"),
    ],
)
def test_what_is_not_a_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_verifier_key(text)


def test_notes_stand_one_after_the_other_and_an_unfinished_one_is_left_out() -> None:
    data = (COSIGNED + NOTE + NOTE[:60]).encode()

    notes = list(split_notes(data.splitlines(keepends=True)))

    assert [note.text for note in notes] == [COSIGNED, NOTE]
    assert [(note.line, note.offset) for note in notes] == [(1, 0), (7, len(COSIGNED.encode()))]


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(NOTE.replace("— ", "  "), id="no signature line"),
        pytest.param("a\nb\nc\nd\n", id="no empty line"),
        pytest.param("x\n" * 100, id="no end"),
    ],
)
def test_what_cannot_become_a_note_is_refused(rest: str) -> None:
    with pytest.raises(NoteError):
        list(split_notes((NOTE + rest).encode().splitlines(keepends=True)))


@given(st.lists(st.sampled_from([b"\n", b"a\n", b"\xff\n", b"a", "— ".encode(), "— a b\n".encode()]), max_size=100))
def test_any_lines_are_split_or_refused(lines: list[bytes]) -> None:
    try:
        notes = list(split_notes(lines))
    except NoteError:
        return

    assert all("\n— " in f"\n{note.text}" for note in notes)
