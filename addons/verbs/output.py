"""How the verbs speak: rich text for people, JSON for programs."""

from __future__ import annotations

import json
import sys

from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup read, no line broken. rich itself honours NO_COLOR."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Write one JSON document to standard output, for `--json`."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")
