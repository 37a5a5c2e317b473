"""A process that dies at one of its durable steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest


class Crash(BaseException):
    """Past every handler, as SIGKILL is."""


def die_after(left: int, monkeypatch: pytest.MonkeyPatch, steps: Iterable[tuple[object, str]]) -> None:
    """Let the call behind the first `left` calls of `steps` (owner, name) raise Crash, and every later one."""
    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            return real(*arguments, **options)
        return call

    for owner, name in steps:
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
