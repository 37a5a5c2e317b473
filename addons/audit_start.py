"""`__main__.py` of governor-audit.pyz: says what is missing, then hands over to `addons/audit_alone.py`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEEDED = ("blake3", "cryptography")
USAGE_ERROR = 2


def lacking() -> str | None:
    """What is not here and must be; None where nothing is amiss."""
    # Read by whatever Python the auditor has: everything else in the archive may be beyond an older one.
    if sys.version_info < (3, 12):  # noqa: UP036
        return "Python 3.12 or newer"
    absent = [name for name in NEEDED if find_spec(name) is None]
    return " and ".join(absent) + " (pip install " + " ".join(absent) + ")" if absent else None


if __name__ == "__main__":
    lacks = lacking()
    if lacks:
        sys.stderr.write("governor-audit: needs " + lacks + "\n")
        sys.exit(USAGE_ERROR)
    from addons.audit_alone import main

    sys.exit(main())
