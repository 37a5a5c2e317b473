"""What mitmproxy itself may print: nothing that an agent sent.

Its lines about connections quote hosts, queries and raw bytes, and an exception's text can quote a header. A log line
that Governor lets through names the place and the class of a fault, nothing else.
"""

from __future__ import annotations

import logging

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
    kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "an error"
    record.msg, record.args, record.exc_info = f"{kind} in mitmproxy; the flow was refused or ended", (), None
    return True
