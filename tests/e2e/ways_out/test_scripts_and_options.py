"""Ways out through whoever else is in the process: unloaded and changed scripts, other scripts, options, mitmweb."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SCALE
from tests.e2e import wire
from tests.e2e.origins import serving
from tests.e2e.process import BIN, Governor, command_line, scratch_environment, started
from tests.e2e.tree import copy_of_the_tree
from tests.e2e.ways_out.conftest import mitmweb
from tests.e2e.ways_out.scripts import unruly
from tests.e2e.ways_out.ways import POLICY, Web, Yard, everything, get, patiently, recording

pytestmark = pytest.mark.e2e

UNLOADED = 70
BOTH = pytest.mark.parametrize("which", ["x-ahead", "x-behind"])


def assert_ended(governor: Governor) -> None:
    """The process ended because Governor was unloaded, its port is closed, its log is whole."""
    assert governor.process.wait(15) == UNLOADED
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", governor.port)):
        pass
    assert governor.entries()[-1]["reason"] == "unloaded"
    assert governor.verify()["result"] == "verified"


# Its own script


def touches(script: Path) -> None:
    """Also a reload of a script that is whole is an unload of the one that governs."""
    os.utime(script, (time.time() + 5,) * 2)


def breaks(script: Path) -> None:
    script.write_text("this is no Python")
    touches(script)


def deletes(script: Path) -> None:
    script.unlink()


def misses_a_module(script: Path) -> None:
    script.write_text("import a_helper_that_is_gone\n" + script.read_text())
    touches(script)


@pytest.mark.case(7, 8, 9)
@pytest.mark.parametrize("change", [breaks, deletes, misses_a_module, *([touches] if SCALE >= 10 else [])])
def test_a_changed_script_governs_until_the_process_ends(tmp_path: Path, change: Callable[[Path], None]) -> None:
    tree = copy_of_the_tree(tmp_path)
    with serving() as origin, started(tmp_path, POLICY, root=tree) as governor:
        change(tree / "addons" / "governor.py")
        statuses, deadline = set(), time.monotonic() + 15
        while governor.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                answer = wire.ask(governor.port, wire.plain("GET", f"{origin.url}/denied/x"))
                statuses.add(answer and answer.status)

        assert statuses <= {403, 429, None}
        assert origin.seen.connections == 0
        assert_ended(governor)


@pytest.mark.case(10)
def test_a_script_without_its_addon_is_not_ready(tmp_path: Path) -> None:
    """It then is a plain mitmdump, which nothing inside can prevent: who deploys asks for readiness first."""
    tree = copy_of_the_tree(tmp_path)
    (tree / "addons" / "governor.py").write_text("x = 1\n")
    environment = scratch_environment(tmp_path) | {"GOVERNOR_HOME": str(tmp_path / "home")}
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    process = subprocess.Popen(command_line(tmp_path / "home", policy, [], False, root=tree), env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(2)
        status = subprocess.run([str(BIN / "governor"), "status", "--json"],
                                env=environment, capture_output=True, text=True)
    finally:
        process.kill()
        process.wait()

    assert status.returncode == 1


@pytest.mark.case(11)
def test_an_operator_who_empties_the_scripts_in_mitmweb_ends_the_process(tmp_path: Path) -> None:
    with mitmweb(tmp_path) as operator:
        status, _ = operator.call("PUT", "/options", {"scripts": []})

        assert status == 0
        assert_ended(operator.governor)


@pytest.mark.case(12, 19)
@pytest.mark.parametrize("act", ["set-command", "unload-and-replay", *(["remove"] if SCALE >= 10 else [])])
def test_a_script_that_takes_governor_out_ends_the_process(tmp_path: Path, act: str) -> None:
    script = unruly(tmp_path, "x-behind", 1)
    with serving() as origin, started(tmp_path, POLICY, ["-s", str(script)]) as governor:
        answer = wire.ask(governor.port, wire.plain("GET", f"{origin.url}/x", ("x-behind", f"{act}@request")))

        assert (answer, origin.seen.connections) == (None, 0)
        assert_ended(governor)


# Other scripts


@pytest.mark.case(13, 14)
@BOTH
@pytest.mark.parametrize("act", ["clear", "halt", "answer", "stream"])
@pytest.mark.parametrize("hook", ["requestheaders", "request"])
def test_the_refusal_stands_whatever_another_script_does(beside: Yard, which: str, act: str, hook: str) -> None:
    with beside.nothing_leaves():
        answer = beside.ask(wire.plain("POST", f"{beside.http.url}/denied/x", (which, f"{act}@{hook}"),
                                       ("Content-Length", "4"), body=b"data"), "POST")

    assert answer is not None
    assert (answer.status, answer.code) == (403, "DEFAULT_DENY")


@pytest.mark.case(15, 16)
@BOTH
@pytest.mark.parametrize(("act", "code"), [
    ("map-remote", "RULE_DENY"), ("map-silently", "DESTINATION_MISMATCH"), ("edit", "DEFAULT_DENY"),
    ("edit-later", "EDITED"), ("modify-body-later", "EDITED"),
])
def test_what_another_script_makes_of_a_request_is_what_is_judged(beside: Yard, which: str, act: str,
                                                                  code: str) -> None:
    with beside.nothing_leaves():
        answer = beside.ask(wire.plain("POST", f"{beside.http.url}/mapped", (which, f"{act}@request"),
                                       ("Content-Length", "4"), body=b"good"), "POST")

    assert answer is not None
    assert (answer.status, answer.code) == (403, code)


@pytest.mark.case(16)
def test_a_body_that_another_script_changed_is_the_one_that_is_counted(beside: Yard) -> None:
    answer = beside.ask(wire.plain("POST", f"{beside.http.url}/mapped", ("x-behind", "modify-body@request"),
                                   ("Content-Length", "4"), body=b"good"), "POST")

    decision = beside.governor.entries("decision")[-1]
    assert answer is not None
    assert answer.status == 200
    assert beside.http.seen.requests[-1][3] == b"secret"
    assert decision["in"]["body_bytes"] == len(b"secret")


@pytest.mark.case(36)
@BOTH
def test_a_request_that_another_script_would_stream_is_read_whole_first(beside: Yard, which: str) -> None:
    head = wire.plain("POST", f"{beside.http.url}/denied/x", (which, "stream@requestheaders"),
                      ("Content-Length", "8"))

    def attempt() -> wire.Answer | None:
        with wire.dial(beside.port) as connection:
            connection.sendall(head + b"half")
            time.sleep(0.3)
            return wire.send(connection, b"half", "POST")

    with beside.nothing_leaves():
        answer = patiently(attempt)

    assert answer is not None
    assert (answer.status, answer.code) == (403, "DEFAULT_DENY")


@pytest.mark.case(59)
@BOTH
@pytest.mark.parametrize("act", ["redirect@server_connect", "via@server_connect"])
def test_a_script_that_leads_the_connection_elsewhere_leads_it_nowhere(beside: Yard, which: str, act: str) -> None:
    before = beside.trap.seen.connections
    answer = beside.ask(wire.plain("GET", f"{beside.http.url}/x", (which, act)))

    assert answer is not None
    assert (answer.status, beside.trap.seen.connections) == (502, before)


BEHIND_THE_BACK = """
import re
from mitmproxy import ctx

def running():
    ctx.options._options["ignore_hosts"].value = [".*"]
    ctx.options._options["rawtcp"].value = True
    ctx.options._options["connection_strategy"].value = "eager"
    ctx.master.addons.get("nextlayer").ignore_hosts = [re.compile(".*")]
"""


@pytest.mark.case(66)
def test_options_set_behind_everyones_back_let_nothing_out(tmp_path: Path) -> None:
    """The options are only the first line: what they would let through is closed where it begins."""
    script = tmp_path / "behind.py"
    script.write_text(BEHIND_THE_BACK)
    with recording() as origin, started(tmp_path, POLICY, ["-s", str(script)]) as governor:
        for content in (b"SSH-2.0-OpenSSH_9.2\r\n", b"\x16\x03\x01\x00\x05hello", get("/denied/x", ("Host", "x"))):
            with contextlib.suppress(wire.Refused), wire.connected(governor.port, origin.authority) as connection:
                connection.sendall(content)
                everything(connection, 0.5)

        assert origin.everything == b""


# The operator in mitmweb


@pytest.mark.case(17)
@pytest.mark.parametrize(("edit", "code"), [
    pytest.param({"path": "/denied/x"}, "DEFAULT_DENY", id="path"),
    pytest.param({"host": "gist.example.org"}, "RULE_DENY", id="host"),
    pytest.param({"host": "169.254.169.254", "headers": []}, "NEVER", id="address without Host"),
    pytest.param({"headers": [["Host", "gist.example.org"]]}, "DESTINATION_MISMATCH", id="Host header"),
    pytest.param({"headers": [["Host", "localhost"], ["Host", "gist.example.org"]]}, "DESTINATION_MISMATCH",
                 id="second Host header"),
    pytest.param({"scheme": "ftp"}, "PROTOCOL_REFUSED", id="scheme"),
    pytest.param({"http_version": "HTTP/2.0"}, "MALFORMED", id="version"),
    pytest.param({"method": "GET /denied/x HTTP/1.1\r\nx: "}, "MALFORMED", id="method with a request in it"),
    pytest.param({"trailers": [["x", "y"]]}, "TRAILERS", id="trailers"),
])
def test_a_request_edited_in_mitmweb_is_judged_as_it_was_edited(web: Web, edit: dict[str, Any], code: str) -> None:
    with serving() as origin, ThreadPoolExecutor(1) as pool:
        path = f"/held-{time.monotonic_ns()}"
        asked = pool.submit(wire.ask, web.governor.port, wire.plain(
            "GET", f"{origin.url}{path}", ("x-behind", "hold@request")), seconds=30)
        held = web.flow(lambda flow: flow["request"].get("path") == path and flow["intercepted"])
        edited = web.call("PUT", f"/flows/{held['id']}", {"request": edit})
        resumed = web.call("POST", f"/flows/{held['id']}/resume")
        answer = asked.result()

        assert (edited[0], resumed[0]) == (200, 200)
        assert answer is not None
        assert (answer.status in (400, 403), answer.code) == (True, code)
        assert origin.seen.connections == 0


@pytest.mark.case(17)
def test_a_request_that_was_held_and_not_edited_passes(web: Web) -> None:
    with serving() as origin, ThreadPoolExecutor(1) as pool:
        path = f"/held-{time.monotonic_ns()}"
        asked = pool.submit(wire.ask, web.governor.port, wire.plain(
            "GET", f"{origin.url}{path}", ("x-behind", "hold@request")), seconds=30)
        held = web.flow(lambda flow: flow["request"].get("path") == path and flow["intercepted"])
        before = origin.seen.connections
        web.call("POST", f"/flows/{held['id']}/resume")
        answer = asked.result()

        assert (before, answer and answer.status) == (0, 200)


@pytest.mark.case(18)
@pytest.mark.parametrize("change", [None, {"host": "localhost"}])
def test_a_refused_flow_replayed_in_mitmweb_is_refused_again(web: Web, change: dict[str, Any] | None) -> None:
    with serving() as origin:
        path = f"/denied/{time.monotonic_ns()}"
        wire.ask(web.governor.port, wire.plain("GET", f"{origin.url}{path}"))
        refused = web.flow(lambda flow: flow["request"].get("path") == path)
        if change:
            web.call("PUT", f"/flows/{refused['id']}", {"request": change | {"path": "/allowed"}})
        status, _ = web.call("POST", f"/flows/{refused['id']}/replay")
        replayed = web.flow(lambda flow: "PROTOCOL_REFUSED" in flow["comment"])

        assert (status, replayed["response"]["status_code"]) == (200, 403)
        assert origin.seen.connections == 0


@pytest.mark.case(60)
def test_a_flow_made_in_mitmweb_and_replayed_is_refused(web: Web) -> None:
    with serving() as origin:
        web.call("POST", "/commands/view.flows.create", {"arguments": ["GET", f"{origin.url}/made"]})
        made = web.flow(lambda flow: flow["request"].get("path") == "/made")
        web.call("POST", f"/flows/{made['id']}/replay")
        replayed = web.flow(lambda flow: flow["request"].get("path") == "/made" and flow["comment"] != "")

        assert "PROTOCOL_REFUSED" in replayed["comment"]
        assert origin.seen.connections == 0


# Options

VETOED: dict[str, Any] = {
    "ignore_hosts": [".*"], "allow_hosts": ["x"], "tcp_hosts": [".*"], "udp_hosts": [".*"], "intercept": "~all",
    "map_remote": ["/a/b"], "map_local": ["|a|/etc"], "modify_headers": ["/~q/a/b"], "modify_body": ["/~q/a/b"],
    "stream_large_bodies": "1k", "ssl_insecure": True, "connection_strategy": "eager", "rawtcp": True,
    "onboarding": True, "validate_inbound_headers": False, "mode": ["socks5"], "confdir": "/elsewhere",
    "listen_port": 1, "governor_policy": ["/elsewhere"], "governor_home": "/elsewhere", "save_stream_file": "/dev/null",
    "stickycookie": ".*", "stickyauth": ".*", "server_replay": ["/dev/null"], "client_replay": ["/dev/null"],
    "proxyauth": "any", "upstream_auth": "a:b", "body_size_limit": "1m", "http2": False, "keep_host_header": True,
    "block_list": ["/~all/200"], "normalize_outbound_headers": False, "http3": False,
}


@pytest.mark.case(20)
def test_options_changed_in_mitmweb_are_refused_and_put_back(web: Web) -> None:
    before = web.options()
    answers = {name: web.call("PUT", "/options", {name: value}) for name, value in VETOED.items()}

    assert {name: status for name, (status, _) in answers.items()} == dict.fromkeys(VETOED, 400)
    assert all("fixed while Governor runs" in told for _, told in answers.values())
    assert web.options() == before


@pytest.mark.case(20)
def test_no_option_at_all_can_be_changed_in_mitmweb(web: Web) -> None:
    """Also those that a later mitmproxy may add: whatever its interface lists is tried, in turn over several runs."""
    taken, every = {}, 1 if SCALE >= 10 else 8
    options = list(web.options().items())
    for name, option in options[int(time.time()) % every::every]:
        # An empty list of scripts ends the process, and any change of the password, even one that is put back, has
        # mitmweb make itself another one.
        if name not in ("scripts", "web_password"):
            taken[name] = web.call("PUT", "/options", {name: other_value(option)})[0]

    assert {name for name, status in taken.items() if status != 400} == set()


def other_value(option: dict[str, Any]) -> Any:
    if option["choices"]:
        return next(choice for choice in option["choices"] if choice != option["value"])
    match option["type"]:
        case "bool":
            return not option["value"]
        case "int" | "optional int":
            return (option["value"] or 0) + 1
        case "sequence of str":
            return [*option["value"], "x"]
        case _:
            return f"{option['value'] or ''}x"


@pytest.mark.case(20)
@pytest.mark.parametrize("words", ["set ignore_hosts .*", "set connection_strategy eager", "set ssl_insecure true"])
def test_an_option_set_by_a_command_is_refused(web: Web, words: str) -> None:
    command, *arguments = words.split()
    before = web.options()[arguments[0]]["value"]
    status, told = web.call("POST", f"/commands/{command}", {"arguments": arguments})

    assert status == 200
    assert "fixed while Governor runs" in told
    assert web.options()[arguments[0]]["value"] == before
