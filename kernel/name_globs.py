"""Names of models, tools, repositories and the like, in which a star is any run of characters."""

from __future__ import annotations

import re
from collections.abc import Mapping

from kernel.document import Node, Reader, quote
from kernel.errors import PatternError

_GLOB = re.compile(r"[A-Za-z0-9_*](?:[A-Za-z0-9_*./:@-]{0,126}[A-Za-z0-9_*])?", re.ASCII)


def globs(reader: Reader, found: Mapping[str, Node], key: str) -> tuple[str, ...] | None:
    """Names in which a star is any run of characters; None where the key is left out."""
    if key not in found:
        return None
    words = [reader.parsed("E228", word, lambda text: _glob(text, key)) for word in reader.words(found[key], key)]
    return tuple(dict.fromkeys(word for word in words if word is not None))


def _glob(text: str, key: str) -> str:
    if _GLOB.fullmatch(text):
        return text
    raise PatternError(
        f"{quote(text)} is no name and no pattern of names in {key}",
        "letters, digits and _ . / : @ - inside, at most 128 characters; * for any run of characters")
