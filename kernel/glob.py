"""How globs match, in time that no path can blow up. `PathSet` answers for a list of path globs at once."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kernel.policy import PathGlob

_ANY_SEGMENTS = "(?:/[^/]*+)*"
_NEXT_SEGMENTS = "(?:/[^/]*+)*?"
_END_OF_SEGMENT = "(?![^/])"


class PathSet:
    """The paths that at least one of the globs matches. A path is asked as text: "/" and its segments joined by "/"."""

    __slots__ = ("_exact", "_globs", "_whole", "_within")

    def __init__(self, globs: Iterable[PathGlob]) -> None:
        exact, within, others = set(), [], []
        for glob in globs:
            *front, last = glob.segments
            if "*" not in "/".join(glob.segments):
                exact.add(joined(glob.segments))
            elif last == "**" and "*" not in "/".join(front):
                within.append(joined(tuple(front)) if front else "")
                exact.add(within[-1])
            else:
                others.append(compiled(glob.segments))
        self._whole = "" in within
        self._exact = frozenset(exact)
        self._within = tuple(f"{path}/" for path in dict.fromkeys(within))
        self._globs = tuple(dict.fromkeys(others))

    def __contains__(self, text: str) -> bool:
        if self._whole or text in self._exact:
            return True
        if self._within and text.startswith(self._within):
            return True
        return any(glob.fullmatch(text) for glob in self._globs)


def joined(segments: tuple[str, ...]) -> str:
    """The text of a path with these segments."""
    return "/" + "/".join(segments)


@lru_cache(maxsize=65536)
def compiled(segments: tuple[str, ...]) -> re.Pattern[str]:
    """A regular expression for the text of every path that the segments of a glob match.

    Between two `**` the leftmost place is always a good one, so each such part is atomic: it is never tried again, and
    the time stays in proportion to path times glob.
    """
    parts = _parts(segments)
    if len(parts) == 1:
        return re.compile("".join(map(_segment, parts[0])))
    first, *middle, last = ("".join(map(_segment, part)) for part in parts)
    searched = "".join(f"(?>{_NEXT_SEGMENTS}{part})" for part in middle if part)
    tail = f"{_NEXT_SEGMENTS}{last}" if last else _ANY_SEGMENTS
    return re.compile(first + searched + tail)


def _parts(segments: tuple[str, ...]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for segment in segments:
        if segment == "**":
            parts.append([])
        else:
            parts[-1].append(segment)
    return parts


def _segment(segment: str) -> str:
    return "/" + _stars(segment, "[^/]", _END_OF_SEGMENT)


def _stars(text: str, character: str, end: str) -> str:
    first, *rest = map(re.escape, text.split("*"))
    if not rest:
        return first + end
    *middle, last = rest
    return first + "".join(f"(?>{character}*?{part})" for part in middle if part) + f"{character}*{last}{end}"


@lru_cache(maxsize=4096)
def word(text: str) -> re.Pattern[str]:
    """A regular expression for the words that a glob without segments matches: `*` is any run of characters."""
    return re.compile(_stars(text, ".", ""), re.DOTALL)
