"""Values that are one word, or some words, out of a few."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from kernel.document import Node, Reader, did_you_mean, quote
from kernel.errors import PatternError


def choice(reader: Reader, found: Mapping[str, Node], key: str, code: str, options: Collection[str]) -> str | None:
    """One word out of a few."""
    return reader.value(found, key, code, lambda text: _one_of(text, key, options))


def choices(
    reader: Reader, found: Mapping[str, Node], key: str, code: str, options: Collection[str]
) -> frozenset[str] | None:
    """One or more words out of a few; None where the key is left out."""
    if key not in found:
        return None
    words = reader.words(found[key], key)
    return frozenset(
        word.text for word in words
        if reader.parsed(code, word, lambda text: _one_of(text, key, options)) is not None
    )


def _one_of(text: str, key: str, options: Collection[str]) -> str:
    if text in options:
        return text
    hint = did_you_mean(text, options) or f"one of: {', '.join(sorted(options))}"
    raise PatternError(f"{quote(text)} is nothing that {key} can be", hint)
