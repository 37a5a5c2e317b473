"""What a refused client gets, in the form in which it shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.net.http.http1 import assemble_response

from addons.refusal import Refused, response
from kernel.verdict import Action, Code, Verdict
from tests.addons.accept_headers import CHROMIUM, NPM, PIP

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


@pytest.mark.parametrize("code", [Code.IDENTITY_REQUIRED, Code.IDENTITY_REFUSED])
def test_a_client_that_knows_no_proxy_is_asked_for_nothing(code: Code) -> None:
    answer = response(replace(refused(code), to_proxy=False))

    assert answer.status_code == 407
    assert "proxy-authenticate" not in answer.headers
    assert "where they come from" in problem(answer)["next_step"]


def test_a_client_that_was_too_fast_is_told_to_come_back() -> None:
    answer = response(refused(Code.REFUSAL_RATE, Action.THROTTLE))

    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
    assert answer.headers["x-governor-verdict"] == "throttle"


def test_the_llm_client_is_told_that_its_login_is_fine() -> None:
    error = problem(response(DENIED, asked(), llm_host=True))["error"]

    assert error == {
        "type": "permission_error", "code": "RULE_DENY",
        "message": "Governor refused POST to gist.example.org: rule no-gists. Your login is fine."
                   " Stop: another method, mirror or retry is refused too. Instead: use the snippet store."
                   " Ask #agent-platform and quote main/1234."}


def test_git_gets_text() -> None:
    answer = response(DENIED, asked(user_agent="git/2.50.0"))

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith("Governor refused POST to gist.example.org: rule no-gists\nStop: ")


CALL = {"jsonrpc": "2.0", "id": "call-7", "method": "tools/call"}


def calling(body: object, **headers: str) -> http.Request:
    request = asked(content_type="application/json", **headers)
    request.content = json.dumps(body).encode()
    return request


def test_a_json_rpc_call_is_answered_with_an_error_of_its_own_kind() -> None:
    answer = response(DENIED, calling(CALL))

    told = problem(answer)
    error = told.pop("error")
    assert told == {"jsonrpc": "2.0", "id": "call-7"}
    assert error["code"] == answer.status_code == 403
    assert error["message"].startswith("Governor refused POST to gist.example.org: rule no-gists. Stop: ")
    assert error["data"] == problem(response(DENIED, asked()))
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("call_id", [3, 2.5, None, "", "\r\nX-Evil: 1", "</script>"])
def test_a_json_rpc_call_gets_its_id_back(call_id: object) -> None:
    told = problem(response(DENIED, calling(CALL | {"id": call_id})))

    assert told["id"] == call_id
    assert isinstance(told["id"], type(call_id))


@pytest.mark.parametrize("body", [[CALL], {"jsonrpc": "2.0", "method": "log"}])
def test_a_batch_or_a_notification_gets_the_problem(body: object) -> None:
    assert response(DENIED, calling(body)).headers["content-type"] == "application/problem+json"


def test_a_json_rpc_client_that_was_too_fast_is_told_to_come_back() -> None:
    answer = response(refused(Code.REFUSAL_RATE, Action.THROTTLE), calling(CALL))

    assert (answer.status_code, answer.headers["retry-after"], answer.headers["x-should-retry"]) == (429, "1", "true")
    assert problem(answer)["error"]["code"] == 429


class Reading(HTMLParser):
    """What a page consists of: its tags with attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_browser_gets_a_page_with_everything_a_person_needs() -> None:
    answer = response(DENIED, asked(accept=CHROMIUM))

    page = Reading(answer.text)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for told in ("Forbidden by Governor: RULE_DENY", "Governor refused POST to gist.example.org: rule no-gists",
                 "use the snippet store", "#agent-platform", "no-gists", "coder-1", "main/1234"):
        assert told in page.text


@pytest.mark.parametrize("hostile", [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "'-->", "&lt;b&gt;"])
def test_a_page_shows_what_an_agent_sent_as_text(hostile: str) -> None:
    told = replace(DENIED, method=hostile, target=hostile, agent=hostile)
    usual, page = response(DENIED, asked(accept=CHROMIUM)), response(told, asked(accept=CHROMIUM))

    assert Reading(page.text).tags == Reading(usual.text).tags
    assert Reading(page.text).text.count(hostile) == 3


def test_a_page_has_the_status_and_headers_of_every_other_form_and_may_do_nothing() -> None:
    page, other = response(DENIED, asked(accept=CHROMIUM)), response(DENIED, asked())

    differing = ("content-type", "content-length", "content-security-policy")
    assert (page.status_code, page.reason) == (other.status_code, other.reason)
    assert {name: value for name, value in page.headers.items() if name not in differing} == {
        name: value for name, value in other.headers.items() if name not in differing}
    assert page.headers["content-security-policy"].startswith("default-src 'none';")
    assert {tag for tag, _ in Reading(page.text).tags}.isdisjoint({"script", "img", "link", "a", "form", "iframe"})


@pytest.mark.parametrize("accept", [PIP, NPM, "*/*", "application/json"])
def test_a_program_gets_no_page(accept: str) -> None:
    assert response(DENIED, asked(accept=accept)).headers["content-type"] == "application/problem+json"


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


hostile_text = st.one_of(st.text(), st.text(alphabet="\r\n\0<>&\"'\\;:= x\udcff\u2028/"))


@given(hostile_text, hostile_text, st.one_of(st.none(), st.text(max_size=20)),
       st.sampled_from(["plain", "git", "html", "call", "grpc"]), st.booleans())
def test_in_no_form_does_what_an_agent_sent_become_a_header_or_markup(
        method: str, target: str, call_id: str | None, form: str, llm_host: bool) -> None:
    requests = {"plain": asked(), "git": asked(user_agent="git/2"), "html": asked(accept="text/html"),
                "call": calling(CALL | {"id": call_id}),
                "grpc": asked(version="HTTP/2.0", content_type="application/grpc")}
    usual = response(DENIED, requests[form], llm_host)
    answer = response(replace(DENIED, method=method, target=target), requests[form], llm_host)

    varying = ("content-length", "grpc-message")
    assert [field for field in answer.headers.items() if field[0] not in varying] == [
        field for field in usual.headers.items() if field[0] not in varying]
    assert answer.reason == usual.reason
    assert answer.headers.get("grpc-message", "").isascii()
    assert answer.headers.get("grpc-message", "").isprintable()
    if form == "html":
        assert Reading(answer.text).tags == Reading(usual.text).tags
    if form in ("plain", "call"):
        assert set(problem(answer)) == set(problem(usual))
        assert answer.content is not None
        assert answer.content.isascii()
        assert answer.content.decode().isprintable()
