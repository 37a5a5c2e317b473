"""What a call may say without losing its bound, as the providers' public references of November 2026 describe it.

Only what is listed has a bound. A member that is not listed may be a new way to spend: tools that the provider runs
itself as often as it likes, work that goes on behind the answer, a dearer class of service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernel.llm.endpoints import Api

_MODEL_AND_USE = frozenset({
    "model", "stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier",
    "prompt_cache_key", "prompt_cache_retention"})
_SAMPLING = frozenset({
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logit_bias", "top_logprobs"})
_TOOLS = frozenset({"tools", "tool_choice", "parallel_tool_calls"})
_KNOWN: Mapping[Api, frozenset[str]] = {
    Api.CHAT: _MODEL_AND_USE | _SAMPLING | _TOOLS | {
        "messages", "max_tokens", "max_completion_tokens", "n", "functions", "function_call", "logprobs",
        "response_format", "reasoning_effort", "verbosity", "modalities", "thinking", "enable_thinking",
        "chat_template_kwargs"},
    Api.RESPONSES: _MODEL_AND_USE | _SAMPLING | _TOOLS | {
        "input", "instructions", "max_output_tokens", "max_tool_calls", "text", "reasoning", "include", "truncation",
        "background", "previous_response_id", "conversation"},
    Api.COMPLETIONS: _MODEL_AND_USE | _SAMPLING | {
        "prompt", "suffix", "max_tokens", "n", "best_of", "echo", "logprobs"},
    Api.EMBEDDINGS: frozenset({"model", "input", "encoding_format", "dimensions", "user"}),
    Api.MESSAGES: frozenset({
        "model", "messages", "system", "max_tokens", "stream", "stop_sequences", "temperature", "top_p", "top_k",
        "metadata", "tools", "tool_choice", "thinking", "output_config", "output_format", "context_management",
        "cache_control", "service_tier", "speed", "inference_geo"}),
    Api.GEMINI: frozenset({
        "contents", "systemInstruction", "system_instruction", "tools", "toolConfig", "tool_config", "safetySettings",
        "safety_settings", "generationConfig", "generation_config", "cachedContent", "cached_content", "labels"}),
}
_GENERATION = frozenset({
    "maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count", "stopSequences", "stop_sequences",
    "temperature", "topP", "top_p", "topK", "top_k", "seed", "responseMimeType", "response_mime_type", "responseSchema",
    "response_schema", "responseJsonSchema", "response_json_schema", "presencePenalty", "presence_penalty",
    "frequencyPenalty", "frequency_penalty", "responseLogprobs", "response_logprobs", "logprobs", "thinkingConfig",
    "thinking_config", "responseModalities", "response_modalities", "mediaResolution", "media_resolution"})
# Members that have a bound with these values alone.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "background": (False,), "modalities": (["text"],), "speed": ("standard",), "inference_geo": ("global",),
    "service_tier": ("auto", "default", "flex", "standard_only"), "responseModalities": (["TEXT"],),
    "response_modalities": (["TEXT"],),
}  # fmt: skip
_OWN_TOOLS: Mapping[Api, tuple[str, ...]] = {
    Api.CHAT: ("function", "custom"),
    Api.RESPONSES: ("function", "custom", "local_shell", "apply_patch", "computer_use_preview"),
    Api.MESSAGES: ("custom", "bash_", "text_editor_", "computer_", "memory_"),
}
"""Tools that the client runs, by their type, or its beginning where versions follow: each use of one is a new call."""
_DECLARATIONS = frozenset({"functionDeclarations", "function_declarations"})


def unbounded(api: Api, root: Mapping[str, Any]) -> str | None:
    """Why nothing bounds what a call costs, of the form "it ..."; None where something does."""
    return _unknown(_KNOWN[api], root) or _of_tools(api, root) or _of_config(api, root)


def _unknown(known: frozenset[str], said: Mapping[str, Any]) -> str | None:
    if not known.issuperset(said):
        # Its name is what the agent chose, and stands nowhere.
        return "it has a member that is not known here"
    for name, values in _PLAIN.items():
        if said.get(name) is not None and said[name] not in values:
            return f'it asks for a "{name}" of which no bound is known'
    return None


def _of_tools(api: Api, root: Mapping[str, Any]) -> str | None:
    tools = root.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and _is_own(api, tool) for tool in tools):
        return "it offers a tool that the provider runs itself"
    return None


def _is_own(api: Api, tool: Mapping[str, Any]) -> bool:
    if api is Api.GEMINI:
        return _DECLARATIONS.issuperset(tool)
    kind = tool.get("type", "custom" if api is Api.MESSAGES else None)
    return isinstance(kind, str) and any(
        kind.startswith(own) if own.endswith("_") else kind == own for own in _OWN_TOOLS.get(api, ()))


def _of_config(api: Api, root: Mapping[str, Any]) -> str | None:
    """What Gemini has in an object of its own, what a template makes of a prompt, and the edits that Anthropic makes of
    a conversation.
    """
    if api is Api.GEMINI:
        config = root.get("generationConfig") or root.get("generation_config") or {}
        return _unknown(_GENERATION, config) if isinstance(config, dict) else "its generationConfig is no object"
    if not _only_switches(root.get("chat_template_kwargs") or {}):
        return "it has more than switches for the template of its prompt"
    return None if _only_clears(root.get("context_management") or {}) else "it has the provider sum up the conversation"


def _only_switches(said: Any) -> bool:
    """Whether no text may become many times as long: some servers take the template itself there."""
    return isinstance(said, dict) and all(isinstance(value, bool) for value in said.values())


def _only_clears(managed: Any) -> bool:
    edits = managed.get("edits", []) if isinstance(managed, dict) and {"edits"}.issuperset(managed) else None
    return isinstance(edits, list) and all(
        isinstance(edit, dict) and str(edit.get("type")).startswith("clear_") for edit in edits)
