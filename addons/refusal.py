"""What a refused client gets: one content, in the form in which this client shows it to its user."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mitmproxy import http

from addons import json_rpc, refusal_page
from addons.media_types import prefers_html
from kernel.verdict import Code, Verdict

_CHALLENGE = 'Basic realm="Governor", charset="UTF-8"'
_TITLES = {
    400: "Bad Request", 403: "Forbidden", 407: "Proxy Authentication Required", 413: "Content Too Large",
    414: "URI Too Long", 429: "Too Many Requests", 502: "Bad Gateway", 503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Refused:
    """Everything a refusal tells. `target` is a host in canonical form or empty, `entry` is LANE/SEQ.

    `cut` is True for the end of an answer that had begun. `wait_seconds`: after how long another try may pass.
    `to_proxy` is False for a client that does not know that it speaks with a proxy.
    """

    verdict: Verdict
    method: str
    target: str
    agent: str | None
    flow: str | None
    entry: str | None
    contact: str | None
    cut: bool = False
    wait_seconds: int = 1
    to_proxy: bool = True

    @property
    def detail(self) -> str:
        why = self._why()
        where = f"{self.method} to {self.target}" if self.target else self.method or "a connection"
        if self.verdict.code is Code.ORIGIN_FAILED:
            return f"Governor allowed {where}, but {why}"
        return f"Governor {'ended' if self.cut else 'refused'} {where}: {why}"

    def _why(self) -> str:
        rule, reason = self.verdict.rule, self.verdict.reason or self.verdict.code.lower()
        if rule is None:
            return reason
        return f"{reason} ({rule})" if self.verdict.code in _MEASURED else f"rule {rule}"

    @property
    def next_step(self) -> str:
        quote = f" and quote {self.entry}" if self.entry else ""
        ask = f" Ask {self.contact}{quote}." if self.contact else (f" Quote {self.entry}." if self.entry else "")
        return _advice(self.verdict, to_proxy=self.to_proxy) + ask


def response(refused: Refused, request: http.Request | None = None, llm_host: bool = False) -> http.Response:
    """The refusal as an HTTP response to this request."""
    status = refused.verdict.code.status
    if request is not None and speaks_grpc(request):
        return _grpc(refused)
    content_type, body = _body(refused, request, status, llm_host)
    if request is not None and request.method == "HEAD":
        body = b""
    answer = http.Response.make(status, body, _headers(refused, content_type, status))
    answer.reason = _phrase(refused, status)
    return answer


def _phrase(refused: Refused, status: int) -> str:
    # Fixed parts only: nothing that the agent chose may enter the status line.
    return f"{_TITLES[status]} by Governor: {refused.verdict.code}" if status != 407 else _TITLES[status]


def _advice(verdict: Verdict, *, to_proxy: bool) -> str:
    told = f" Instead: {verdict.tell}." if verdict.tell else ""
    if verdict.code.status == 407 and not to_proxy:
        return _UNKNOWN + told
    return _ADVICE.get(verdict.code, _STOP) + told


# Where a rule's name alone would not tell what to change.
_MEASURED = frozenset({Code.BODY_TOO_LARGE, Code.URL_TOO_LONG, Code.BUSY})
_UNKNOWN = "Stop: agents are known here by where they come from, and nobody is known to come from there."
_STOP = "Stop: another method, mirror or retry is refused too."
_ADVICE = {
    Code.RATE_LIMITED: "Wait as long as retry-after says, then go on more slowly.",
    Code.BUDGET_EXHAUSTED: "Stop: the budget is used up, and every other way draws on it, too.",
    Code.AGENT_HALTED: "Stop: nothing passes until an operator releases this agent.",
    Code.QUARANTINED: "Only read for now: what writes is refused until the quarantine ends.",
    Code.CLOCK_JUMP: "Wait: an operator must accept the clock.",
    Code.PERSISTENCE_LIMIT: "Stop asking for this: it was refused each time.",
    Code.STAGNATION: "Stop asking for this: the answer is the same each time.",
    Code.EXPLORATION_DRIFT: "Stay with the places that you have been to: no more new ones pass.",
    Code.REFUSAL_RATE: "Wait before the next request: too many of yours were refused within a second.",
    Code.BODY_TOO_LARGE: "Send, or ask for, less at a time.",
    Code.URL_TOO_LONG: "Put less into the URL.",
    Code.MALFORMED: "Send it as HTTP/1.1 or HTTP/2 says.",
    Code.BUSY: "Wait and try again: Governor serves as many flows as it may.",
    Code.IDENTITY_REQUIRED: "Send the proxy credentials of this agent.",
    Code.IDENTITY_REFUSED: "Send valid proxy credentials: these are unknown or revoked.",
    Code.IDENTITY_CONFLICT: "Be one agent: send the credentials of the agent that this client otherwise is, or none.",
    Code.AUDIT_UNAVAILABLE: "Stop: nothing passes until the operator has restored Governor's log or its anchors.",
    Code.ORIGIN_FAILED: "This is not a refusal: the origin is down, or speaks in a way that cannot be trusted.",
    Code.RESOLVE_FAILED: "Check the name: it has no address.",
    Code.DESTINATION_MISMATCH: "Name one destination: tunnel, TLS server name, Host and URL must agree.",
    Code.NON_CANONICAL: "Write the URL in its plain form.",
}


# Refusals that a later try may find gone.
_PASSING = (429, 503)


def _retryable(code: Code) -> str:
    return "true" if code.status in _PASSING else "false"


def _headers(refused: Refused, content_type: str, status: int) -> dict[str, str]:
    headers = {
        "content-type": content_type,
        "cache-control": "no-store",
        "x-should-retry": _retryable(refused.verdict.code),
        "x-governor-verdict": refused.verdict.action,
        "x-governor-code": refused.verdict.code,
    }
    if content_type.startswith("text/html"):
        headers["content-security-policy"] = refusal_page.POLICY
    if refused.entry:
        headers["x-governor-entry"] = refused.entry
    # Who was redirected here never asked a proxy: browsers take the question itself for an attack.
    if status == 407 and refused.to_proxy:
        headers["proxy-authenticate"] = _CHALLENGE
    if status in _PASSING:
        headers["retry-after"] = str(refused.wait_seconds)
    return headers


def _body(refused: Refused, request: http.Request | None, status: int, llm_host: bool) -> tuple[str, bytes]:
    """Content type and body. The client chooses how it reads, by what it sent; never what."""
    if request is None:
        return "application/problem+json", problem(refused, status, llm_host)
    if request.headers.get("user-agent", "").startswith("git/"):
        return "text/plain; charset=utf-8", f"{refused.detail}\n{refused.next_step}\n".encode(errors="replace")
    call = json_rpc.call_in(request)
    if call is not None:
        # Clients read the error at any status; what is not below -32000 is an application's own code.
        told = json_rpc.error(call, status, f"{refused.detail}. {refused.next_step}", members(refused, status))
        return "application/json", _json(told)
    if prefers_html(request.headers.get("accept", "")):
        return "text/html; charset=utf-8", _page(refused, status)
    return "application/problem+json", problem(refused, status, llm_host)


def problem(refused: Refused, status: int, llm_host: bool) -> bytes:
    """The problem details (RFC 9457) with every member of Governor's, null where unknown."""
    told = members(refused, status)
    if llm_host:
        told["error"] = llm_error(refused)
    return _json(told)


def members(refused: Refused, status: int) -> dict[str, Any]:
    """The problem details as a value. `error` is for clients that show no other member."""
    return {
        "type": "about:blank", "title": _TITLES[status], "status": status, "detail": refused.detail,
        "verdict": refused.verdict.action, "code": refused.verdict.code, "rule": refused.verdict.rule,
        "agent": refused.agent, "flow": refused.flow, "entry": refused.entry, "next_step": refused.next_step,
        "error": refused.detail,
    }


def llm_error(refused: Refused) -> dict[str, str]:
    """The member `error` as the clients of model providers read it."""
    return {"type": "permission_error",
            "message": f"{refused.detail}. Your login is fine. {refused.next_step}", "code": refused.verdict.code}


def _json(value: dict[str, Any]) -> bytes:
    # Escaped to ASCII: no line break and nothing a terminal obeys comes out of it.
    return json.dumps(value, separators=(",", ":")).encode()


def _page(refused: Refused, status: int) -> bytes:
    details = {"verdict": refused.verdict.action, "code": refused.verdict.code, "rule": refused.verdict.rule,
               "agent": refused.agent, "entry": refused.entry}
    return refusal_page.page(_phrase(refused, status), refused.detail, refused.next_step, details)


def speaks_grpc(request: http.Request) -> bool:
    """True for a request of a gRPC client, which reads headers and trailers alone."""
    return request.is_http2 and request.headers.get("content-type", "").startswith("application/grpc")


def _grpc(refused: Refused) -> http.Response:
    """Trailers-only PERMISSION_DENIED or UNAVAILABLE: gRPC clients show nothing of an HTTP error's body."""
    return http.Response.make(200, b"", {**_headers(refused, "application/grpc", 200), **grpc_fields(refused)})


def grpc_fields(refused: Refused) -> dict[str, str]:
    """How a gRPC call ends, as trailers."""
    message = "".join(_grpc_percent(character) for character in refused.detail)
    return {"grpc-status": "14" if refused.verdict.code is Code.ORIGIN_FAILED else "7", "grpc-message": message}


def _grpc_percent(character: str) -> str:
    # gRPC's "Percent-Encoded" message: everything outside printable ASCII, and the percent sign itself.
    plain = " " <= character <= "~" and character != "%"
    return character if plain else "".join(f"%{byte:02X}" for byte in character.encode(errors="replace"))


