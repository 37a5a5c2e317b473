"""Governor in mitmweb: the same verdicts, shown where a security team looks, and mitmweb itself out of reach."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.process import Governor, free_port, started

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Governor, int]]:
    port = free_port()
    options = ["--no-web-open-browser", "--web-host", "127.0.0.1", "--web-port", str(port)]
    with started(tmp_path_factory.mktemp("web"), options=options, program="mitmweb") as governor:
        yield governor, port


def flows(governor: Governor, port: int) -> list[dict[str, Any]]:
    """What mitmweb shows to who has its token."""
    token = next(found[1] for line in governor.output if (found := re.search(r"token=(\w+)", line)))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/flows?token={token}", timeout=10) as answer:
        shown: list[dict[str, Any]] = json.load(answer)
    return shown


def test_a_refusal_stands_in_the_list_of_flows_with_its_verdict(web):
    governor, port = web
    status, _, _ = governor.curl("http://gist.example.org/")

    shown = flows(governor, port)[-1]
    number = governor.wait_for_entry("decision")[-1]["seq"]

    assert status == 403
    assert shown["comment"] == f"deny no-gists RULE_DENY main/{number}"
    assert shown["marked"] == "🔴"


def test_mitmweb_cannot_be_reached_through_governor(web):
    governor, port = web

    status, body, _ = governor.curl(f"http://localhost:{port}/flows")

    assert status == 403
    assert json.loads(body)["code"] == "NEVER"


def test_the_password_of_mitmweb_is_not_in_the_log(web):
    governor, _ = web
    token = next(found[1] for line in governor.output if (found := re.search(r"token=(\w+)", line)))

    assert token not in Path(governor.segment).read_text()


def test_an_agent_is_halted_and_a_request_explained_in_mitmwebs_command_line(web):
    governor, port = web
    explained = command(governor, port, "governor.explain", "local", "get", "http://gist.example.org/")
    command(governor, port, "governor.halt", "local", "seen in the browser")
    entry = governor.wait_for_entry("operator")[-1]
    status, body, _ = governor.curl("http://gist.example.org/")

    assert explained == "deny RULE_DENY: rule no-gists"
    assert (entry["act"], entry["agent"], entry["reason"], entry["by"]) == (
        "agents halt", "local", "seen in the browser", "mitmproxy")
    assert (status, json.loads(body)["code"]) == (403, "AGENT_HALTED")


def command(governor: Governor, port: int, name: str, *arguments: str) -> Any:
    """What a command answers that is typed into mitmweb."""
    token = next(found[1] for line in governor.output if (found := re.search(r"token=(\w+)", line)))
    same = "ab" * 16
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/commands/{name}?token={token}", json.dumps({"arguments": arguments}).encode(),
        {"content-type": "application/json", "cookie": f"_mitmproxy_xsrf={same}", "x-xsrftoken": same})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["value"]
