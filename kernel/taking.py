"""An object read field by field, so that what nobody asked for can be told at the end."""

from __future__ import annotations

from collections.abc import Mapping

from kernel.canonical import MAX_INTEGER, Value


class Taking:
    """The fields of an object. What is not taken, or is of another kind than the one asked for, stays in `left`."""

    def __init__(self, fields: Mapping[str, Value]) -> None:
        self._fields = dict(fields)
        self._parts: dict[str, Taking] = {}

    def peek(self, name: str) -> str | None:
        """A text that is left where it is; None where there is none, or an empty one."""
        value = self._fields.get(name)
        return value if isinstance(value, str) and value else None

    def text(self, name: str) -> str | None:
        """A text, taken; None where there is none, or an empty one."""
        value = self.peek(name)
        if value is not None:
            del self._fields[name]
        return value

    def number(self, name: str, most: int = MAX_INTEGER) -> int | None:
        """A number from 0 to `most`, taken."""
        value = self._fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            return None
        del self._fields[name]
        return value

    def texts(self, name: str) -> list[str]:
        """The texts of a list of nothing but texts, left where they are; else none."""
        value = self._fields.get(name)
        if not isinstance(value, list | tuple):
            return []
        texts = [item for item in value if isinstance(item, str)]
        return texts if len(texts) == len(value) else []

    def counts(self, name: str) -> int:
        """The sum of the numbers of an object, left where they are."""
        value = self._fields.get(name)
        numbers = value.values() if isinstance(value, dict) else ()
        return sum(number for number in numbers if isinstance(number, int))

    def part(self, name: str) -> Taking:
        """An object within, of which fields can be taken; an empty one where there is none."""
        value = self._fields.get(name)
        return self._parts.setdefault(name, Taking(value)) if isinstance(value, dict) else Taking({})

    def left(self) -> dict[str, Value]:
        """What was not taken, without what is null and without objects of which all was."""
        left = self._fields | {name: part.left() or None for name, part in self._parts.items()}
        return {name: value for name, value in left.items() if value is not None}
