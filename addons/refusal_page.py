"""A refusal as a page, for a person who looks at it in a browser."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The page's Content-Security-Policy: it is shown under the name of the refused site, so it can do nothing at all."""

_STYLE = """\
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 42rem; margin: 10vh auto; padding: 0 1rem;
       color: #1c1c1c; background: #fff; }
h1 { font-size: 1.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; }
dt { color: #595959; }
dd { margin: 0; font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) { body { color: #e8e8e8; background: #161616; } dt { color: #a8a8a8; } }"""


def page(title: str, detail: str, next_step: str, details: Mapping[str, str | None]) -> bytes:
    """A whole document, without scripts and without anything to load. None among `details` is left out."""
    rows = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in details.items() if value is not None)
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>
{_STYLE}
</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p>{escape(detail)}.</p>
<p>{escape(next_step)}</p>
<dl>
{rows}
</dl>
</body>
</html>
""".encode(errors="replace")
