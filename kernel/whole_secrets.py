"""Secrets that stand whole in a policy: it is copied beside the log, shown in findings and kept in repositories."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kernel.findings import Finding, Severity
from kernel.policy import Position

# A name such as "sk-nightly-mirror-of-everything" is no key: a key mixes capitals and digits in.
_MIXED = r"(?=[A-Za-z0-9_-]*[A-Z])(?=[A-Za-z0-9_-]*[0-9])[A-Za-z0-9_-]"
_KINDS = (
    ("a token of Governor's own", "gov_", r"gov_[A-Za-z0-9_-]{20,}"),
    ("a GitHub token", "gh", r"gh[pousr]_[A-Za-z0-9]{30,}"),
    ("a GitHub token", "github_pat_", r"github_pat_[A-Za-z0-9_]{22,}"),
    ("an API key", "sk-", rf"sk-{_MIXED}{{20,}}"),
    ("a Slack token", "xox", r"xox[abeprs]-[A-Za-z0-9-]{10,}"),
    ("an AWS key", "AKIA", r"AKIA[A-Z0-9]{16}(?![A-Z0-9])"),
    ("an AWS key", "ASIA", r"ASIA[A-Z0-9]{16}(?![A-Z0-9])"),
    ("a private key", "PRIVATE KEY", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    ("a signed token (JWT)", "eyJ", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("a webhook's token", "/services/", r"/services/T[A-Za-z0-9]{6,}/B[A-Za-z0-9]{6,}/[A-Za-z0-9]{16,}"),
    ("a webhook's token", "/webhooks/", r"/webhooks/[0-9]{6,}/[A-Za-z0-9_-]{30,}"),
    ("a bot's token", "/bot", r"/bot[0-9]{6,}:[A-Za-z0-9_-]{30,}"),
)
# In the midst of a word nothing begins but the path of a URL.
_PATTERNS = tuple((what, sign, re.compile(rf"(?:(?<![A-Za-z0-9])|(?=/)){pattern}")) for what, sign, pattern in _KINDS)
_HINT = "take it out and revoke it; for a path that carries one write a star in its place"


def whole_secrets(text: str, file: str) -> Iterator[Finding]:
    """Every secret in the text of a policy, comments included. What it is is told, never the secret."""
    for what, sign, pattern in _PATTERNS:
        if sign not in text:
            continue
        for found in pattern.finditer(text):
            start = found.start()
            line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
            message = f"{what} stands here, and a policy is no place for a secret"
            yield Finding("E405", Severity.ERROR, Position(file, line, column), message, _HINT)
