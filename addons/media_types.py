"""What kind of answer a client can show, as it says in its Accept header."""

from __future__ import annotations

import re

_HTML = "text/html"
_LONGEST = 1024
_RANGE = re.compile(r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*(?:;(.*))?", re.DOTALL)
_QUALITY = re.compile(r"(?:^|;)[ \t]*q=([01]?(?:\.\d{0,3})?)[ \t]*(?=;|$)", re.IGNORECASE | re.ASCII)


def prefers_html(accept: str) -> bool:
    """True for a browser: it names text/html, likes nothing better, and JSON not as much."""
    asked = _qualities(accept)
    html = asked.get(_HTML, 0.0)
    return html > 0 and html == max(asked.values()) and _json(asked) < html


def prefers_json(accept: str) -> bool:
    """True for a program: it names a kind of JSON and likes no text better."""
    asked = _qualities(accept)
    text = max((quality for name, quality in asked.items() if name.startswith("text/")), default=0.0)
    return _json(asked) > 0 and _json(asked) >= text


def _json(asked: dict[str, float]) -> float:
    return max((quality for name, quality in asked.items() if name.endswith(("/json", "+json"))), default=0.0)


def _qualities(accept: str) -> dict[str, float]:
    """The media ranges of an Accept header with how much each is liked; what cannot be read is left out."""
    asked: dict[str, float] = {}
    for part in accept[:_LONGEST].split(","):
        found = _RANGE.fullmatch(part)
        if found is not None:
            quality = _QUALITY.search(found[2] or "")
            asked[found[1].lower()] = float(quality[1] or "0") if quality and quality[1] != "." else 1.0
    return asked
