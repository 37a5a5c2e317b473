"""One end of the socket between the supervisor and a worker: asked, answered and told in JSON, a length before each."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from addons.errors import GovernorError

if TYPE_CHECKING:
    from addons.control import Message

type Heard = Callable[[Message], Awaitable[Message | None]]

_LENGTH = struct.Struct("!I")


class ChannelError(GovernorError):
    """The other end does not answer: it has ended, or not answered in time."""


class Refused(GovernorError):
    """The other end answered that it does not do what it was asked."""


class Channel:
    """Used in one event loop. `run` hears what comes; `tell` and `ask` say something."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._heard: dict[str, Heard] = {}
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = False
        self.on_fault: Callable[[Exception], object] = lambda fault: None
        """Called with what a `heard` raised that is no answer; the other end is told its class alone."""

    @classmethod
    async def over(cls, connection: socket.socket) -> Self:
        """The channel over a connected socket, which is its own from here on."""
        connection.setblocking(False)  # noqa: FBT003
        return cls(*await asyncio.open_unix_connection(sock=connection))

    def on(self, word: str, heard: Heard) -> None:
        """Have `heard` called with what comes under this word; what it returns is the answer."""
        self._heard[word] = heard

    async def run(self) -> None:
        """Hear until the other end is gone."""
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                self._take(json.loads(await self._reader.readexactly(length)))
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self.close()

    def tell(self, word: str, **fields: Any) -> None:
        """Say something that has no answer."""
        self._send({"word": word, "fields": fields})

    async def ask(self, word: str, seconds: float | None = None, **fields: Any) -> Message:
        """The other end's answer. Raises `Refused` where it says no, `ChannelError` where nothing comes in time."""
        number = next(self._numbers)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            self._send({"word": word, "fields": fields, "asked": number})
            async with asyncio.timeout(seconds):
                told: Message = await answer
        except TimeoutError:
            raise ChannelError(f"no answer within {seconds:g} s") from None
        finally:
            del self._asked[number]
        if "no" in told:
            raise Refused(str(told["no"]))
        return told

    def close(self) -> None:
        """End the channel, which the other end hears. What is asked and not answered fails."""
        if self.closed:
            return
        self.closed = True
        self._writer.close()
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(ChannelError("it has ended"))
        for task in self._tasks:
            task.cancel()

    def _take(self, message: Message) -> None:
        if "answers" in message:
            answer = self._asked.get(message["answers"])
            if answer is not None and not answer.done():
                answer.set_result(message["fields"])
            return
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Message) -> None:
        try:
            told = await self._heard[message["word"]](message["fields"]) or {}
        except GovernorError as no:
            told = {"no": str(no)}
        except Exception as fault:  # noqa: BLE001
            self.on_fault(fault)
            told = {"no": f"internal fault {type(fault).__name__}; Governor's own log has more"}
        if "asked" in message:
            self._send({"answers": message["asked"], "fields": told})

    def _send(self, message: Message) -> None:
        if self.closed:
            if "word" in message and "asked" in message:
                raise ChannelError("it has ended")
            return
        content = json.dumps(message).encode()
        with suppress(OSError, RuntimeError):
            self._writer.write(_LENGTH.pack(len(content)) + content)
