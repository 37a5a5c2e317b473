"""What the process prints: what Governor says to its operator, and of mitmproxy's own nothing that an agent sent.

mitmproxy's lines about connections quote hosts, queries and raw bytes, and an exception's text can quote a header. A
log line that Governor lets through names the place and the class of a fault, nothing else.
"""

from __future__ import annotations

import logging
import sys
import traceback
from pathlib import Path

_CONNECTIONS = ("mitmproxy.proxy", "mitmproxy.addons.next_layer", "mitmproxy.addons.tlsconfig", "mitmproxy.net")
# They report what a hook, a connection or a task raised, whose text may quote what it was about.
_REPORTING = ("mitmproxy.proxy.server", "mitmproxy.addonmanager", "mitmproxy.master", "asyncio")


def say(text: str) -> None:
    """Tell the operator."""
    print(f"governor: {text}", file=sys.stderr, flush=True)


def place(fault: BaseException) -> str:
    """The class of a fault and the line it comes from: neither quotes what an agent sent."""
    frames = traceback.extract_tb(fault.__traceback__)
    kind = type(fault).__name__
    return f"{kind} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else kind


def restrict() -> None:
    """Silence the loggers of connections below errors, and strip what errors and failed hooks say."""
    for name in _CONNECTIONS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _REPORTING:
        logger = logging.getLogger(name)
        logger.filters.clear()
        logger.addFilter(_strip)


def _strip(record: logging.LogRecord) -> bool:
    record.msg, record.args, record.exc_info = f"{_what(record)}, in mitmproxy or one of its scripts", (), None
    return True


def _what(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return "an error"
    return place(record.exc_info[1])
