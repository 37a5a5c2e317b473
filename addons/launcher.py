"""The wheel's `governor_proxy/__init__.py`: one private folder first on the import path, then the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Run `governor`; ends the process with the verb's exit status."""
    # Other distributions called `kernel` exist: ours must be found before theirs.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from addons.cli import main as run

    run()
