"""A C2SP witness: somebody else's server that cosigns the heads of a log as long as each grew from the one before."""

from __future__ import annotations

import base64
import http.client
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from addons.anchors.exchange import Answer, post
from addons.anchors.note_file import NoteFile
from addons.anchors.protocol import AnchorError, Receipt
from addons.anchors.submission import submission_key, submitted
from addons.audit_text import escaped
from addons.errors import StartRefused
from addons.keys import verifies
from kernel.cosignature import Cosignature, WitnessKey, cosignatures
from kernel.entry import timestamp
from kernel.errors import NoteError
from kernel.note import Checkpoint, stated_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from addons.anchors.history import History
    from addons.home import Home

# Between two clocks that are each kept well; a cosignature from the future would prove nothing of the present.
MOST_AHEAD_SECONDS = 600
_MOST_TURNS = 3
_SHOWN_CHARACTERS = 200
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n?")
_HOW_TO_BE_KNOWN = "give its operator what governor audit anchor keys prints"
_ADVICE = {
    403: f"it does not know this log's submission key: {_HOW_TO_BE_KNOWN}",
    404: f"it does not know this lane, or the address is wrong: {_HOW_TO_BE_KNOWN}",
}


class AnchorConflict(AnchorError):
    """The anchor holds another log than this one: this one was taken back or forked, or the anchor was."""


class WitnessAnchor:
    """One witness. What it cosigned lies in the receipts of the home: the last cosigned size, and the proof of it."""

    kind = "witness"

    def __init__(self, url: str, key: WitnessKey, home: Home, history: History) -> None:
        self.target = url
        self._url = f"{url.rstrip('/')}/add-checkpoint"
        self._key, self._home, self._history = key, home, history
        self._cosigned: dict[str, int] = {}

    def publish(self, lane: str, note: str) -> Receipt:
        """Have the head cosigned. `AnchorConflict` where the witness holds what this lane did not grow from."""
        head = stated_checkpoint(note)
        try:
            text = submitted(submission_key(self._home, lane), note)
        except (StartRefused, OSError) as fault:
            raise self._failed(f"the submission key: {fault}") from fault
        old = self._size(lane)
        for _ in range(_MOST_TURNS):
            answer = self._post(lane, old, head, text)
            if answer.status != http.client.CONFLICT:
                return self._kept(lane, head, note, self._cosignature(lane, head, text, answer))
            old = self._conflicting(lane, old, head, answer)
        raise self._failed("it names another size each time it is asked; ask its operator")

    def notes(self) -> Iterator[str]:
        """What it cosigned, as this home keeps it: a witness gives nothing out again."""
        for path in sorted(self._home.paths.receipts.glob(f"{self._key.kid}-*.note")):
            yield from NoteFile(path).notes()

    def _file(self, lane: str) -> NoteFile:
        return NoteFile(self._home.paths.receipts / f"{self._key.kid}-{lane}.note")

    def _size(self, lane: str) -> int:
        """The size that was cosigned last, as far as this home knows."""
        if lane not in self._cosigned:
            self._cosigned[lane] = 0
            for text in self._file(lane).last():
                try:
                    if cosignatures(text, [self._key], verifies):
                        self._cosigned[lane] = stated_checkpoint(text).size
                except NoteError:
                    # A damaged receipt says nothing: the witness itself names the size that it holds.
                    continue
        return self._cosigned[lane]

    def _post(self, lane: str, old: int, head: Checkpoint, text: str) -> Answer:
        if old > head.size:
            raise self._rolled_back(lane, old, head)
        proof = self._history.proof(lane, old, head) if old else ()
        hashes = "".join(f"{base64.b64encode(each).decode()}\n" for each in proof)
        try:
            return post(self._url, f"old {old}\n{hashes}\n{text}".encode())
        except (OSError, http.client.HTTPException, ValueError) as fault:
            raise self._failed(f"it does not answer ({_words(str(fault) or type(fault).__name__)})") from fault

    def _conflicting(self, lane: str, old: int, head: Checkpoint, answer: Answer) -> int:
        """The size that the witness holds instead, from which a proof can be made."""
        named = _SIZE.fullmatch(answer.body)
        held = int(named[1]) if named else None
        if held is None and old < head.size:
            raise self._failed(f"409 with no size in it: {_quoted(answer.body)}")
        if held is None or held == old:
            raise self._forked(lane, head, answer)
        return held

    def _cosignature(self, lane: str, head: Checkpoint, text: str, answer: Answer) -> Cosignature:
        if answer.status == http.client.UNPROCESSABLE_ENTITY:
            raise self._forked(lane, head, answer)
        if answer.location and 300 <= answer.status < 400:
            raise self._failed(f"it points to {_quoted(answer.location.encode())}, and no redirect is followed; "
                               "name the address that answers")
        if answer.status != http.client.OK:
            raise self._failed(f"it answers {answer.status}: {_quoted(answer.body)}"
                               + (f"; {_ADVICE[answer.status]}" if answer.status in _ADVICE else ""))
        try:
            found = cosignatures(text + answer.body.decode(), [self._key], verifies)
        except (NoteError, UnicodeDecodeError) as fault:
            raise self._failed(f"its answer is no cosignature ({fault}): {_quoted(answer.body)}") from fault
        if not found:
            raise self._failed(f"no line of its answer is of key {self._key.kid}: {_quoted(answer.body)}")
        if (ahead := found[-1].seconds - time.time()) > MOST_AHEAD_SECONDS:
            raise self._failed(f"its clock is {ahead:.0f} s ahead of this machine's; set the one that is wrong")
        return found[-1]

    def _kept(self, lane: str, head: Checkpoint, note: str, cosignature: Cosignature) -> Receipt:
        self._file(lane).append(f"{note}{cosignature.line}\n")
        self._cosigned[lane] = head.size
        proof: dict[str, str | int] = {"cosignature": cosignature.line, "time": cosignature.seconds}
        return Receipt(self.kind, self.target, lane, head.size, head.root.hex(), timestamp(datetime.now(UTC)), proof)

    def _forked(self, lane: str, head: Checkpoint, answer: Answer) -> AnchorConflict:
        return AnchorConflict(f"witness {self.target}: it refuses lane {lane} at {head.size} entries ({answer.status}: "
                              f"{_quoted(answer.body)}): this log did not grow from what was cosigned; "
                              "run governor audit verify, and compare with the receipts")

    def _rolled_back(self, lane: str, held: int, head: Checkpoint) -> AnchorConflict:
        return AnchorConflict(f"witness {self.target}: {held} entries of lane {lane} were cosigned, and the head at "
                              f"hand has {head.size}: an older log was put back, or another process has anchored since")

    def _failed(self, problem: str) -> AnchorError:
        return AnchorError(f"witness {self.target}: {problem}")


def _quoted(said: bytes) -> str:
    """What a stranger said, as it can be shown in a terminal and in one line."""
    words = _words(said[: 4 * _SHOWN_CHARACTERS].decode(errors="replace").strip())
    return f'"{words}"'


def _words(said: str) -> str:
    return escaped(said if len(said) <= _SHOWN_CHARACTERS else f"{said[:_SHOWN_CHARACTERS]}...")
