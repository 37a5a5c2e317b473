"""A call of a model is read as its provider reads it, or not at all, and has a bound or says why it has none."""

from __future__ import annotations

import json
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.comparison import Gap
from kernel.llm.content import input_tokens
from kernel.llm.endpoints import ANTHROPIC, GOOGLE, OPENAI, Api, Endpoint, endpoint, is_free
from kernel.llm.request import Call, read_call

CHAT, RESPONSES, MESSAGES = (Endpoint(api) for api in (Api.CHAT, Api.RESPONSES, Api.MESSAGES))
COMPLETIONS, EMBEDDINGS = Endpoint(Api.COMPLETIONS), Endpoint(Api.EMBEDDINGS)
GEMINI = Endpoint(Api.GEMINI, "gemini-x", streams=True)
PIXEL, SHEET = "data:image/png;base64,AAAA", "data:application/pdf;base64,AAAA"


def said(asked: Endpoint, **members) -> bytes:
    """A small call with these members."""
    least = {
        Api.CHAT: {"model": "m-1", "messages": [{"role": "user", "content": "hi"}]},
        Api.RESPONSES: {"model": "m-1", "input": "hi"}, Api.COMPLETIONS: {"model": "m-1", "prompt": "hi"},
        Api.EMBEDDINGS: {"model": "m-1", "input": "hi"},
        Api.MESSAGES: {"model": "m-1", "messages": [{"role": "user", "content": "hi"}]},
        Api.GEMINI: {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
    }  # fmt: skip
    return json.dumps(least[asked.api] | members).encode()


def call(asked: Endpoint, provider: str = OPENAI, **members) -> Call:
    found = read_call(asked, said(asked, **members), provider)
    assert isinstance(found, Call), found
    return found


@pytest.mark.parametrize(("method", "path", "expected"), [
    ("POST", "/v1/chat/completions", CHAT),
    ("POST", "/openai/v1/chat/completions", CHAT),
    ("POST", "/chat/completions", CHAT),
    ("POST", "/v1/completions", COMPLETIONS),
    ("POST", "/v1/responses", RESPONSES),
    ("POST", "/v1/embeddings", EMBEDDINGS),
    ("POST", "/v1/messages", MESSAGES),
    ("POST", "/v1beta/models/gemini-x:streamGenerateContent", GEMINI),
    ("POST", "/v1/models/gemini-x:generateContent", Endpoint(Api.GEMINI, "gemini-x")),
    ("GET", "/v1/chat/completions", None),
    ("POST", "/v1/messages/batches", None),
    ("POST", "/v1/messages/count_tokens", None),
    ("POST", "/v1/chat/completions/", None),
    ("POST", "/v1beta/models/gemini-x%3AgenerateContent", None),
    ("POST", "/v1beta/models/gemini-x:batchGenerateContent", None),
    ("POST", "/openai/deployments/dear/chat/completions", None),
    ("POST", "/v1/engines/dear/completions", None),
    ("POST", "/models/some/dear/v1/chat/completions", None),
    ("POST", "/", None),
])
def test_an_endpoint_is_known_by_the_end_of_its_path(method, path, expected):
    assert endpoint(method, tuple(path[1:].split("/"))) == expected


@pytest.mark.parametrize(("method", "path", "free"), [
    ("GET", "/v1/models", True), ("DELETE", "/v1/files/f-1", True), ("POST", "/v1/messages/count_tokens", True),
    ("POST", "/v1/responses/input_tokens", True), ("POST", "/v1/responses/r-1/cancel", True),
    ("POST", "/v1beta/models/gemini-x:countTokens", True), ("POST", "/v1/files", False), ("POST", "/v1/batches", False),
    ("POST", "/v1/images/generations", False), ("POST", "/v1/realtime/sessions", False), ("PUT", "/v1/messages", False),
    ("POST", "/v1/messages/batches", False), ("POST", "/v1/responses/compact", False),
    ("POST", "/openai/deployments/dear/chat/completions", False),
])
def test_only_what_reads_deletes_or_counts_is_free(method, path, free):
    assert is_free(method, tuple(path[1:].split("/"))) is free


@pytest.mark.parametrize(("asked", "members", "cap", "place"), [
    (CHAT, {}, None, ("max_completion_tokens",)),
    (CHAT, {"max_tokens": 5}, 5, ("max_completion_tokens",)),
    (CHAT, {"max_completion_tokens": 7}, 7, ("max_completion_tokens",)),
    (CHAT, {"max_tokens": 5, "max_completion_tokens": 7}, 7, ("max_completion_tokens",)),
    (CHAT, {"max_tokens": None}, None, ("max_completion_tokens",)),
    (RESPONSES, {"max_output_tokens": 9}, 9, ("max_output_tokens",)),
    (COMPLETIONS, {"max_tokens": 9}, 9, ("max_tokens",)),
    (MESSAGES, {"max_tokens": 1024}, 1024, ("max_tokens",)),
    (EMBEDDINGS, {}, None, None),
    (GEMINI, {"generationConfig": {"maxOutputTokens": 8}}, 8, ("generationConfig", "maxOutputTokens")),
    (GEMINI, {"generation_config": {"max_output_tokens": 8}}, 8, ("generation_config", "max_output_tokens")),
    (GEMINI, {"generationConfig": None}, None, ("generationConfig", "maxOutputTokens")),
])
def test_the_cap_of_an_answer_stands_where_its_provider_reads_it(asked, members, cap, place):
    found = call(asked, **members)

    assert (found.said, found.cap) == (cap, place)


def test_other_hosts_of_the_same_language_may_not_know_the_newer_name_of_the_cap():
    found = call(CHAT, "llm.example.org", max_completion_tokens=7)

    assert (found.said, found.heeded, found.cap) == (7, False, ("max_tokens",))


@pytest.mark.parametrize(("asked", "members", "choices"), [
    (CHAT, {}, 1), (CHAT, {"n": 4}, 4), (COMPLETIONS, {"n": 2, "best_of": 5, "prompt": ["a", "b", "c"]}, 15),
    (COMPLETIONS, {"prompt": [1, 2, 3]}, 1), (COMPLETIONS, {"prompt": [[1, 2], [3]]}, 2), (EMBEDDINGS, {}, 0),
    (GEMINI, {"generationConfig": {"candidateCount": 3}}, 3), (RESPONSES, {}, 1),
])
def test_every_answer_that_is_asked_for_counts(asked, members, choices):
    assert call(asked, **members).choices == choices


@pytest.mark.parametrize(("asked", "members", "prompts"), [
    (EMBEDDINGS, {}, 1), (EMBEDDINGS, {"input": ["a", "b", "c"]}, 3), (EMBEDDINGS, {"input": [1, 2, 3]}, 1),
    (EMBEDDINGS, {"input": [[1, 2], [3]]}, 2), (COMPLETIONS, {"prompt": ["a", "b"], "n": 4}, 2),
    (COMPLETIONS, {"prompt": []}, 1), (CHAT, {"n": 4}, 1), (RESPONSES, {"input": ["a", "b"]}, 1),
])
def test_every_prompt_that_is_read_by_itself_counts(asked, members, prompts):
    assert call(asked, **members).prompts == prompts


@pytest.mark.parametrize(("asked", "members"), [
    (CHAT, {"tools": [{"type": "web_search"}]}), (CHAT, {"web_search_options": {}}), (CHAT, {"modalities": ["audio"]}),
    (CHAT, {"service_tier": "priority"}), (CHAT, {"prediction": {}}), (CHAT, {"never_heard_of": 1}),
    (CHAT, {"chat_template_kwargs": {"chat_template": "{% for n in range(9) %}much{% endfor %}"}}),
    (CHAT, {"chat_template_kwargs": ["enable_thinking"]}),
    (CHAT, {"Max_Tokens": 5}), (CHAT, {"tools": "all"}), (CHAT, {"tools": [{"function": {"name": "f"}}]}),
    (RESPONSES, {"background": True}), (RESPONSES, {"prompt": {"id": "p"}}), (RESPONSES, {"tools": [{"type": "mcp"}]}),
    (RESPONSES, {"tools": [{"type": "function", "name": "f"}, {"type": "file_search"}]}),
    (RESPONSES, {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}),
    (MESSAGES, {"mcp_servers": []}), (MESSAGES, {"container": "c"}), (MESSAGES, {"speed": "fast"}),
    (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    (MESSAGES, {"context_management": {"edits": [{"type": "compact_20260112"}]}}),
    (MESSAGES, {"context_management": {"edits": 3}}), (MESSAGES, {"inference_geo": "us"}),
    (GEMINI, {"tools": [{"googleSearch": {}}]}),
    (GEMINI, {"tools": [{"functionDeclarations": [], "codeExecution": {}}]}),
    (GEMINI, {"generationConfig": {"responseModalities": ["IMAGE"]}}),
    (GEMINI, {"generationConfig": {"speechConfig": 1}}),
    (GEMINI, {"generationConfig": 3, "contents": []}),
])
def test_what_the_provider_does_on_its_own_account_has_no_bound(asked, members):
    found = read_call(asked, said(asked, **members))

    assert isinstance(found, Gap) or found.unbounded is not None


@pytest.mark.parametrize(("asked", "members"), [
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
            "tool_choice": "auto", "chat_template_kwargs": {"enable_thinking": False},
            "response_format": {"type": "json_object"}, "temperature": 0.5}),
    (RESPONSES, {"tools": [{"type": "function", "name": "f"}, {"type": "local_shell"}], "background": False,
                 "service_tier": "auto", "reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]}),
    (MESSAGES, {"tools": [{"name": "f", "input_schema": {}}, {"type": "bash_20250124", "name": "bash"}],
                "thinking": {"type": "adaptive"}, "output_config": {"effort": "low"},
                "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}),
    (GEMINI, {"tools": [{"functionDeclarations": [{"name": "f"}]}], "safetySettings": []}),
])
def test_what_its_own_client_runs_keeps_its_bound(asked, members):
    found = call(asked, **members)

    assert found.unbounded is None
    assert found.sends is not None


@pytest.mark.parametrize(("asked", "members"), [
    (RESPONSES, {"previous_response_id": "r-1"}), (RESPONSES, {"conversation": "c-1"}),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "i"}]}), (RESPONSES, {"input": [{"id": "i"}]}),
    (RESPONSES, {"input": [{"type": "reasoning", "id": "rs-1", "summary": []}]}),
    (RESPONSES, {"input": [{"type": "reasoning", "id": "rs-1", "encrypted_content": ""}]}),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://a.example/"}]}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example"}}]}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA"}}]}]}),
    (CHAT, {"messages": [{"role": "assistant", "audio": {"id": "a-1"}}]}),
    (RESPONSES, {"input": [{"role": "user", "content": [
        {"type": "input_image", "file_id": "f", "image_url": PIXEL}]}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"image_url": {"url": PIXEL}}]}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": SHEET}}]}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": SHEET}]}]}),
    (MESSAGES, {"messages": [{"role": "user", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"}}]}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": ["text"]}]}]}),
    (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64"}}]}]}),
    (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]}),
    (MESSAGES, {"messages": [{"role": "user", "content": [
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "https://a.example"}}]}]}]}),
    (GEMINI, {"cachedContent": "c"}), (GEMINI, {"contents": [{"parts": [{"fileData": {"fileUri": "gs://f"}}]}]}),
    (GEMINI, {"contents": [{"parts": [{"inlineData": {"mimeType": "video/mp4", "data": "AA"}}]}]}),
    (GEMINI, {"contents": [{"parts": [{"functionResponse": {"name": "f", "parts": []}}]}]}),
    (GEMINI, {"contents": [{"parts": [{"functionResponse": {"name": "f"}, "function_response": {"parts": []}}]}]}),
    (EMBEDDINGS, {"input": [{"image": "AA"}]}),
])
def test_what_is_stored_elsewhere_or_longer_than_its_bytes_can_fill_the_window(asked, members):
    assert call(asked, **members).sends is None


def test_messages_of_agents_that_go_on_are_text():
    messages = [
        {"role": "system", "content": "s", "name": "n"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "refusal": None, "reasoning_content": "r", "annotations": [],
         "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "t", "content": "done"}]

    assert call(CHAT, messages=messages).sends is not None


@pytest.mark.parametrize(("asked", "part"), [
    (CHAT, {"type": "image_url", "image_url": {"url": PIXEL}}),
    (MESSAGES, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}),
    (RESPONSES, {"type": "input_image", "image_url": PIXEL}),
])
def test_an_image_in_the_body_counts_as_its_providers_formula_has_it_at_most(asked, part):
    name = "input" if asked is RESPONSES else "messages"
    plain, more = (call(asked, **{name: [{"role": "user", "content": [part] * count}]}) for count in (1, 2))

    assert more.sends - plain.sends >= {CHAT: 50_000, RESPONSES: 50_000, MESSAGES: 5_000}[asked]


def test_a_token_of_text_is_a_byte_or_more():
    text = "x" * 10_000
    body = said(CHAT, messages=[{"role": "user", "content": text}])

    assert call(CHAT, messages=[{"role": "user", "content": text}]).sends >= len(body)


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_text_that_normalising_makes_longer_counts_as_long_as_it_is_then(ensure_ascii):
    # ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM: 3 bytes, 33 once it is written out.
    root = {"model": "m", "messages": [{"role": "user", "content": "\ufdfa" * 1000}]}

    assert input_tokens(Api.CHAT, root, json.dumps(root, ensure_ascii=ensure_ascii)) >= 33_000


# Signs that normalising makes longer, reorders, puts together or takes apart, and what an escape is made of.
SIGNS = "\ufdfa\u0301\u0327\u1ea4\u00e4a\\u\uac01\u1112\u1161\u2126\U0001d160\U0001f600\U0002f800"


@given(st.text(st.sampled_from(SIGNS) | st.characters(exclude_categories=["Cs"])), st.booleans())
def test_no_normal_form_of_a_text_is_longer_than_it_counts(text, ensure_ascii):
    root = {"model": "m", "messages": [{"role": "user", "content": text}]}
    body = json.dumps(root, ensure_ascii=ensure_ascii)
    least = input_tokens(Api.CHAT, root, "")

    assert input_tokens(Api.CHAT, root, body) - least >= max(
        len(normalize(form, text).encode()) for form in ("NFC", "NFD", "NFKC", "NFKD"))


def test_marks_in_a_row_are_counted_in_time_by_their_number():
    """A whole text is normalised in time by its square: this one would take an hour."""
    marks = "\u0301\u0327" * 500_000

    assert call(CHAT, messages=[{"role": "user", "content": marks}]).sends >= len(marks.encode())


def test_reasoning_that_is_sent_whole_counts_by_its_bytes():
    sent = {"type": "reasoning", "id": "rs-1", "summary": [], "encrypted_content": "A" * 1000}
    plain = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "so"}]}

    assert call(RESPONSES, input=[sent]).sends >= 8000
    assert call(RESPONSES, input=[plain]).sends is not None


def test_encrypted_thinking_counts_eight_times():
    thinking = {"type": "thinking", "thinking": "", "signature": "A" * 1000}

    assert call(MESSAGES, messages=[{"role": "assistant", "content": [thinking]}]).sends >= 8000


@pytest.mark.parametrize(("asked", "members", "thinks", "bounded"), [
    (MESSAGES, {"max_tokens": 4000, "thinking": {"type": "enabled", "budget_tokens": 3000}}, 3001, True),
    (MESSAGES, {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 3000}}, 3001, False),
    (MESSAGES, {"max_tokens": 3000, "thinking": {"type": "enabled", "budget_tokens": 3000}}, 3001, False),
    (MESSAGES, {"max_tokens": 2000}, 0, True),
    (CHAT, {"max_tokens": 2000, "thinking": {"type": "enabled", "budget_tokens": 3000}}, 3001, False),
    (CHAT, {"max_tokens": 9000, "max_completion_tokens": 2000, "thinking": {"budget_tokens": 3000}}, 3001, False),
    (CHAT, {"thinking": {"type": "enabled", "budget_tokens": 3000}}, 3001, True),
    (CHAT, {"thinking": {"type": "enabled"}}, 0, True),
])
def test_what_is_to_be_thought_must_stay_below_the_cap(asked, members, thinks, bounded):
    """Between calls of tools a larger budget of thinking is taken, and then it is that which limits the answer."""
    found = call(asked, **members)

    assert (found.thinks, found.unbounded is None) == (thinks, bounded)


@pytest.mark.parametrize(("config", "apart"), [
    ({}, True), ({"thinkingConfig": {"thinkingBudget": 0}}, False), ({"thinkingConfig": {"thinkingBudget": -1}}, True),
    ({"thinkingConfig": {"thinkingLevel": "low"}}, True),
    ({"thinkingConfig": {"thinkingBudget": 0, "thinkingLevel": "high"}}, True),
    ({"thinking_config": {"thinking_budget": 0, "thinking_level": "high"}}, True),
])
def test_thoughts_of_gemini_are_no_part_of_its_cap_unless_it_has_none(config, apart):
    assert call(GEMINI, generationConfig=config).apart is apart


def test_thoughts_are_no_part_of_it_in_openais_language_either():
    assert call(CHAT, GOOGLE).apart
    assert call(CHAT, "gateway.example.org", model="google/Gemini-x").apart
    assert not call(CHAT).apart


@pytest.mark.parametrize(("members", "place"), [
    ({"stream": True}, ("stream_options", "include_usage")),
    ({"stream": True, "stream_options": {"include_usage": False}}, ("stream_options", "include_usage")),
    ({"stream": True, "stream_options": {"include_usage": True}}, None),
    ({"stream": False}, None),
])
def test_a_stream_is_asked_for_its_usage_where_it_would_not_tell(members, place):
    assert call(CHAT, **members).tells == place


@pytest.mark.parametrize("body", [
    b"", b"[]", b"{", b'{"model":"a","model":"b","messages":[]}', b'{"model":"\xff"}', b'{"model":NaN}',
    b'{"messages":[]}', b'{"model":7}', b'{"model":"two words"}',
    b'{"model":"m","Model":"n"}', b'{"model":"m","max_tokens":9,"Max_Tokens":99}', b'{"model":"m","model\\u0000x":"n"}',
    b'{"model":"m","max_tokens":1.5}', b'{"model":"m","max_tokens":-1}',
    b'{"model":"m","max_tokens":0}', b'{"model":"m","max_completion_tokens":-0}',
    b'{"model":"m","max_tokens":"9"}', b'{"model":"m","max_tokens":true}', b'{"model":"m","n":1e3}',
    b'{"model":"m","stream":"yes"}', b'{"model":"m","n":9999999}',
    b'{"model":"m","messages":' + b"[" * 99 + b"]" * 99 + b"}",
    b'{"model":"' + b"m" * 200 + b'"}', b'{"model":"m","max_tokens":' + b"9" * 5000 + b"}",
])
def test_what_can_be_read_in_two_ways_is_not_read(body):
    assert isinstance(read_call(CHAT, body), Gap)


def test_a_cap_of_nothing_is_one_for_anthropic_alone():
    """Others read it as no cap at all."""
    nothing = {"max_tokens": 0}

    assert call(MESSAGES, ANTHROPIC, **nothing).said == 0
    for asked, provider in ((MESSAGES, "llm.example.org"), (CHAT, OPENAI), (CHAT, ANTHROPIC), (COMPLETIONS, OPENAI)):
        assert isinstance(read_call(asked, said(asked, **nothing), provider), Gap)
    assert isinstance(read_call(GEMINI, said(GEMINI, generationConfig={"maxOutputTokens": 0}), GOOGLE), Gap)


def test_a_name_in_both_spellings_is_not_read():
    assert isinstance(read_call(GEMINI, b'{"generationConfig":{},"generation_config":{"maxOutputTokens":9}}'), Gap)
    assert isinstance(read_call(GEMINI, b'{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":9}}'), Gap)
    assert isinstance(read_call(GEMINI, b'{"generationConfig":{"maxOutputTokens":1,"MaxOutputTokens":9}}'), Gap)
