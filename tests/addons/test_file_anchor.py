"""A file elsewhere as an anchor: whole notes, one after the other, whatever a crash or another process did to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.anchors.file import FileAnchor
from addons.anchors.note_file import NoteFile
from addons.anchors.protocol import AnchorError
from addons.home import Home
from kernel import note
from tests.addons.anchored_logs import GrowingLog, size_of

ROOT = Path(__file__).parents[2]
ORIGIN = "governor/0011223344556677/main"


def signed(size: int) -> str:
    return note.sign(note.checkpoint_body(ORIGIN, size, bytes(32)), ORIGIN, bytes(32), lambda _: bytes(64))


NOTES = [signed(size) for size in (1, 20, 300)]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder / "governor.notes"


def test_heads_are_added_one_after_the_other_and_read_back(home: Home, elsewhere: Path):
    log = GrowingLog(home)
    anchor = FileAnchor(elsewhere, home.paths.folder)
    notes = [log.grown(entries) for entries in (1, 5, 2)]
    receipts = [anchor.publish("main", text) for text in notes]
    log.close()

    assert list(anchor.notes()) == notes
    assert elsewhere.read_text() == "".join(notes)
    assert elsewhere.stat().st_mode & 0o777 == 0o600
    assert [receipt.size for receipt in receipts] == [size_of(text) for text in notes]
    assert [elsewhere.read_bytes()[receipt.proof["offset"]:].decode().startswith(text)
            for receipt, text in zip(receipts, notes, strict=True)] == [True] * 3


def test_a_file_in_the_home_is_no_anchor(home: Home, tmp_path: Path):
    (tmp_path / "way").symlink_to(home.paths.audit)

    for path in (home.paths.folder / "notes", home.paths.audit / "x" / "notes", tmp_path / "way" / "notes"):
        with pytest.raises(AnchorError, match="in the home"):
            FileAnchor(path, home.paths.folder)
    with pytest.raises(AnchorError, match="whole path"):
        FileAnchor(Path("notes"), home.paths.folder)
    # A neighbour whose name only begins like the home's is none of its files.
    FileAnchor(Path(f"{home.paths.folder}-anchors/notes"), home.paths.folder)


@pytest.mark.parametrize("what", ["folder", "link", "fifo", "no folder", "text", "unfinished text"])
def test_what_is_no_file_of_notes_is_left_as_it_is(elsewhere: Path, what: str):
    match what:
        case "folder":
            elsewhere.mkdir()
        case "link":
            elsewhere.symlink_to(elsewhere.with_name("target"))
        case "fifo":
            os.mkfifo(elsewhere)
        case "no folder":
            elsewhere.parent.rmdir()
        case "text":
            elsewhere.write_text("a shopping list\n")
        case _:
            elsewhere.write_text("".join(NOTES) + "a shopping list")
    before = elsewhere.read_bytes() if "text" in what else b""

    with pytest.raises(AnchorError, match=str(elsewhere)):
        NoteFile(elsewhere).append(NOTES[0])
    assert not before or elsewhere.read_bytes() == before
    assert not elsewhere.with_name("target").exists()


def test_what_a_crash_left_unfinished_goes_at_every_byte(elsewhere: Path):
    whole, last = "".join(NOTES[:2]).encode(), NOTES[2].encode()
    for cut in range(len(last)):
        before = whole if cut % 2 else b""
        elsewhere.write_bytes(before + last[:cut])
        kept = list(NoteFile(elsewhere).notes())
        offset = NoteFile(elsewhere).append(NOTES[1])

        assert kept == (NOTES[:2] if before else [])
        assert elsewhere.read_bytes() == before + NOTES[1].encode()
        assert offset == len(before)


@given(st.binary(max_size=300))
def test_whatever_the_file_holds_is_read_or_told(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "any.notes"
    for data in (content, NOTES[0].encode() + content):
        path.write_bytes(data)
        file = NoteFile(path)
        for act in (lambda: list(file.notes()), file.last, lambda: file.append(NOTES[0])):  # noqa: B023
            with contextlib.suppress(AnchorError):
                act()


def test_the_last_notes_are_found_in_a_long_file(elsewhere: Path):
    notes = [signed(size) for size in range(1, 1500)]
    elsewhere.write_text("".join(notes))
    last = NoteFile(elsewhere).last()

    assert elsewhere.stat().st_size > 200_000
    assert 100 < len(last) < 1000
    assert last == notes[-len(last):]


def test_several_processes_add_whole_notes(elsewhere: Path):
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from addons.anchors.note_file import NoteFile
        from tests.addons.test_file_anchor import signed
        for number in range(25):
            NoteFile(Path(sys.argv[1])).append(signed(int(sys.argv[2]) * 1000 + number))
    """)
    writers = [subprocess.Popen([sys.executable, "-c", program, str(elsewhere), str(number)], cwd=ROOT)
               for number in (1, 2, 3)]
    ended = [writer.wait(60) for writer in writers]

    assert ended == [0, 0, 0]
    assert sorted(size_of(text) for text in NoteFile(elsewhere).notes()) == [
        number * 1000 + at for number in (1, 2, 3) for at in range(25)]


def test_a_full_disk_is_told():
    with pytest.raises(AnchorError, match=r"/dev/full: .*"):
        NoteFile(Path("/dev/full")).append(NOTES[0])
