"""What a refused client gets, in the form in which it shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.net.http.http1 import assemble_response

from addons.refusal import Refused, response
from kernel.verdict import Action, Code, Verdict

DENIED = Refused(Verdict(Action.DENY, Code.RULE_DENY, "no-gists", "rule no-gists", "use the snippet store"), "POST",
                 "gist.example.org", "coder-1", "flow-1", "main/1234", "#agent-platform")


def refused(code: Code, action: Action = Action.DENY) -> Refused:
    return Refused(Verdict(action, code, reason="why"), "GET", "api.example.org", None, "flow-1", "main/7", None)


def asked(*, version: str = "HTTP/1.1", **headers: str) -> http.Request:
    request = http.Request.make("POST", "https://gist.example.org/", headers={
        name.replace("_", "-"): value for name, value in headers.items()})
    request.http_version = version
    return request


def problem(answer: http.Response) -> dict[str, Any]:
    return dict(json.loads(answer.content or b""))


def test_a_refusal_explains_itself_with_every_field_of_the_contract() -> None:
    answer = response(DENIED, asked())

    detail = "Governor refused POST to gist.example.org: rule no-gists"
    assert problem(answer) == {
        "type": "about:blank", "title": "Forbidden", "status": 403, "detail": detail, "verdict": "deny",
        "code": "RULE_DENY", "rule": "no-gists", "agent": "coder-1", "flow": "flow-1", "entry": "main/1234",
        "next_step": "Stop: another method, mirror or retry is refused too. Instead: use the snippet store."
                     " Ask #agent-platform and quote main/1234.",
        "error": detail,
    }


def test_a_refusal_has_the_headers_of_the_contract() -> None:
    answer = response(DENIED, asked())

    assert (answer.status_code, answer.reason) == (403, "Forbidden by Governor: RULE_DENY")
    assert {name: answer.headers[name] for name in answer.headers if name != "content-length"} == {
        "content-type": "application/problem+json", "cache-control": "no-store", "x-should-retry": "false",
        "x-governor-verdict": "deny", "x-governor-code": "RULE_DENY", "x-governor-entry": "main/1234"}


def test_what_is_unknown_is_null_and_names_no_entry() -> None:
    answer = response(replace(DENIED, agent=None, flow=None, entry=None, contact=None))

    told = problem(answer)
    assert (told["agent"], told["flow"], told["entry"]) == (None, None, None)
    assert "x-governor-entry" not in answer.headers
    assert "main/" not in told["next_step"]


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_a_whole_answer_with_its_status(code: Code) -> None:
    answer = response(refused(code), asked())

    assert answer.status_code == code.status == problem(answer)["status"]
    assert problem(answer)["next_step"]
    assert assemble_response(answer).count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("code", [Code.IDENTITY_REQUIRED, Code.IDENTITY_REFUSED])
def test_missing_or_wrong_credentials_are_asked_for(code: Code) -> None:
    answer = response(refused(code))

    assert answer.reason == "Proxy Authentication Required"
    assert answer.headers["proxy-authenticate"].startswith("Basic realm=")


def test_a_client_that_was_too_fast_is_told_to_come_back() -> None:
    answer = response(refused(Code.REFUSAL_RATE, Action.THROTTLE))

    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
    assert answer.headers["x-governor-verdict"] == "throttle"


def test_the_llm_client_is_told_that_its_login_is_fine() -> None:
    error = problem(response(DENIED, asked(), llm_host=True))["error"]

    assert error["type"] == "permission_error"
    assert "Your login is fine." in error["message"]


def test_git_gets_text() -> None:
    answer = response(DENIED, asked(user_agent="git/2.50.0"))

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith("Governor refused POST to gist.example.org: rule no-gists\nStop: ")


def test_grpc_gets_its_own_status_with_the_detail_as_its_message() -> None:
    answer = response(replace(DENIED, target="50%-ü.example.org"), asked(
        version="HTTP/2.0", content_type="application/grpc+proto"))

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["grpc-status"] == "7"
    assert answer.headers["grpc-message"] == "Governor refused POST to 50%25-%C3%BC.example.org: rule no-gists"


def test_an_origin_that_failed_is_no_missing_permission_to_grpc() -> None:
    answer = response(refused(Code.ORIGIN_FAILED, Action.ALLOW), asked(
        version="HTTP/2.0", content_type="application/grpc"))

    assert answer.headers["grpc-status"] == "14"


def test_grpc_over_http_1_is_no_grpc() -> None:
    assert response(DENIED, asked(content_type="application/grpc")).status_code == 403


def test_a_head_request_gets_no_body() -> None:
    request = asked()
    request.method = "HEAD"

    answer = response(DENIED, request)

    assert answer.content == b""
    assert answer.headers["x-governor-code"] == "RULE_DENY"


@pytest.mark.parametrize("agent", [None, "git/2", "curl/8"])
@pytest.mark.parametrize("hostile", ["\r\nX-Evil: 1\r\n\r\n", "\udcff", "\0", "\x1b[2J", '"}', "x" * 10_000])
def test_nothing_that_an_agent_sent_gets_into_the_head_of_a_refusal(hostile: str, agent: str | None) -> None:
    told = replace(DENIED, method=hostile, target=hostile)
    request = asked(user_agent=agent) if agent else asked(version="HTTP/2.0", content_type="application/grpc")

    head, _, _ = assemble_response(response(told, request)).partition(b"\r\n\r\n")

    assert b"\r\nX-Evil" not in head
    assert b"\0" not in head
    assert b"\x1b" not in head
