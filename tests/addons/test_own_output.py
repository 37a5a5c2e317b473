"""What the process itself prints: never what an agent sent."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest

from addons import own_output

SECRET = "gov_0123456789"


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """The loggers as they were, afterwards."""
    touched = [logging.getLogger(name) for name in (*own_output._CONNECTIONS, *own_output._REPORTING)]
    before = [(logger.level, list(logger.filters)) for logger in touched]
    yield
    for logger, (level, filters) in zip(touched, before, strict=True):
        logger.setLevel(level)
        logger.filters[:] = filters


@pytest.mark.parametrize("name", [
    "mitmproxy.proxy.server", "mitmproxy.proxy.layers.http", "mitmproxy.addons.next_layer",
    "mitmproxy.addons.tlsconfig", "mitmproxy.net.http",
])
def test_chatter_about_connections_is_not_printed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    own_output.restrict()
    logging.getLogger(name).info("client sent %s", SECRET)
    logging.getLogger(name).warning("client sent %s", SECRET)

    assert caplog.records == []


@pytest.mark.parametrize("name", ["mitmproxy.proxy.server", "mitmproxy.addonmanager", "mitmproxy.master", "asyncio"])
def test_a_reported_fault_names_its_class_and_place_not_its_text(name: str, caplog: pytest.LogCaptureFixture) -> None:
    own_output.restrict()
    try:
        raise ValueError(SECRET)
    except ValueError as fault:
        logging.getLogger(name).exception("while handling %s: %s", SECRET, fault)

    (record,) = caplog.records
    said = record.getMessage()
    assert re.fullmatch(r"ValueError at test_own_output\.py:\d+, in mitmproxy or one of its scripts", said)
    assert SECRET not in caplog.text


def test_other_loggers_say_what_they_have_to_say(caplog: pytest.LogCaptureFixture) -> None:
    own_output.restrict()
    logging.getLogger("mitmproxy.proxy.mode_servers").error("the port is taken")

    assert "the port is taken" in caplog.text


def test_restricting_twice_changes_nothing() -> None:
    own_output.restrict()
    own_output.restrict()

    assert len(logging.getLogger("mitmproxy.proxy.server").filters) == 1
