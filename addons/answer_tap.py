"""What a model's answer says of its cost and of tools, read beside the answer while that passes untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from addons.decoding import Undecodable
from addons.unpacking import Unpacking
from kernel.comparison import Gap
from kernel.llm.answer import Answer
from kernel.llm.documents import Documents
from kernel.llm.events import Events, TooLong
from kernel.llm.usage import NOTHING, NOTHING_GENERATED, Bound, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy import http

    from addons.model_calls import ModelCall
    from kernel.entry import Body

type Meter = Callable[[bytes], bytes | list[bytes]]


class Tap:
    """On the answer to one call. Memory is bounded, and whatever comes nothing is raised."""

    def __init__(self, asked: ModelCall, bound: Bound) -> None:
        """`bound` is what is held for the call."""
        self._asked, self._bound = asked, bound
        self._answer: Answer | None = None
        self._reader: Events | Documents = Documents()
        self._unpacking: Unpacking | None = None
        self.exceeded = False
        """Whether more was reported than was held for the call: `told` finds out."""

    def begin(self, response: http.Response) -> None:
        """The head of the answer has come."""
        if isinstance(self._asked.call, Gap):
            return
        streams = response.headers.get("content-type", "").lower().startswith("text/event-stream")
        self._reader = Events() if streams else Documents()
        self._answer = Answer(self._asked.call.api, self._asked.call.model, streams=streams)
        try:
            self._unpacking = Unpacking(response.headers.get("content-encoding", ""))
        except Undecodable:
            self._answer = None

    def beside(self, meter: Meter) -> Meter:
        """The meter of an answer, and what the answer says read after each piece."""
        def both(chunk: bytes) -> bytes | list[bytes]:
            passing = meter(chunk)
            self.take(chunk)
            return passing

        return both

    def take(self, chunk: bytes) -> None:
        """A piece of the answer as its origin has sent it."""
        if self._answer is None or self._unpacking is None:
            return
        try:
            for piece in self._unpacking.take(chunk):
                for said in self._reader.take(piece):
                    self._answer.take(said)
        except (TooLong, Undecodable):
            self._answer = None

    def told(self, status: int | None, *, whole: bool) -> Body:
        """`usage` and `tools` of the outcome, as far as they are known. `whole`: the answer has come to its end."""
        usage = None if self._answer is None else self._answer.usage(whole=whole)
        if usage is None and status in NOTHING_GENERATED:
            usage = NOTHING
        said: Body = {}
        if usage is not None:
            said["usage"] = used = told(usage, self._asked.price, self._bound)
            self.exceeded = "over" in used
        if self._answer is not None and self._answer.tools:
            said["tools"] = dict(self._answer.tools)
        return said
