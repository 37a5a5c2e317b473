"""What mitmproxy itself may print: nothing that an agent sent.

Its lines about connections quote hosts, queries and raw bytes, and an exception's text can quote a header. A log line
that Governor lets through names the place and the class of a fault, nothing else.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

_CONNECTIONS = ("mitmproxy.proxy", "mitmproxy.addons.next_layer", "mitmproxy.addons.tlsconfig", "mitmproxy.net")
# They report what a hook, a connection or a task raised, whose text may quote what it was about.
_REPORTING = ("mitmproxy.proxy.server", "mitmproxy.addonmanager", "mitmproxy.master", "asyncio")


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
    """The class of the fault and the line it comes from: neither quotes what an agent sent."""
    if not record.exc_info or record.exc_info[0] is None:
        return "an error"
    kind, _, trace = record.exc_info
    frames = traceback.extract_tb(trace)
    return f"{kind.__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else kind.__name__
