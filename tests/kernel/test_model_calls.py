"""`llm:` holds for calls that ask these models, and for those with which clients begin; for nothing else."""

from __future__ import annotations

import pytest

from kernel.access import accesses
from kernel.analysis.difference import difference
from kernel.comparison import UNREAD, UNREADABLE, Gap
from kernel.decide import expected
from kernel.explanation import near_misses, would_allow
from kernel.fields import JSON_TYPE, Fields, Part
from kernel.llm_terms import Llm
from kernel.match import Index
from kernel.measures import USUAL_LEAST_OUTPUT, Cap
from kernel.prose import in_words
from kernel.question import STAND_IN, answer, facts_of
from kernel.verdict import Code
from tests.addons.policies import CALLS, codes, compiled, findings

JSON = ((b"content-type", JSON_TYPE.encode()),)
ASK = "allow: ask, to: models.example, llm: {models: [m-*, big/one]}"
FIRST = ASK.replace("]}", "], also: housekeeping}")


def facts(path: str, body: bytes | Gap = b'{"model": "m-1"}', method: str = "POST", headers=JSON):
    return facts_of("local", method, f"https://models.example{path}", 0, headers, body)


def index(*rules: str) -> Index:
    return Index(compiled("rules:\n" + "".join(f"  - {{{rule}}}\n" for rule in rules)).policy)


def code(rules: Index, *asked, **more) -> Code:
    return answer(rules, facts(*asked, **more)).verdict.code


@pytest.mark.parametrize("path", [
    "/v1/messages", "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings",
    "/openai/v1/chat/completions", "/api/v1/messages", "/chat/completions", "/v1beta/openai/chat/completions",
    "/v1/models/m-1:generateContent", "/v1beta/models/m-1:streamGenerateContent", "/v1alpha/models/m-1:generateContent",
])
def test_a_call_that_asks_an_allowed_model_passes_and_one_that_asks_another_does_not(path):
    other = path.replace("m-1", "n-1"), b'{"model": "n-1"}'

    assert code(index(ASK), path) is Code.ALLOW
    assert code(index(ASK), *other) is Code.DEFAULT_DENY
    assert code(index("allow: all, to: models.example, methods: any", f"deny: {ASK[7:]}"), path) is Code.RULE_DENY
    assert code(index("allow: all, to: models.example, methods: any", f"deny: {ASK[7:]}"), *other) is Code.ALLOW


@pytest.mark.parametrize(("path", "method"), [
    ("/v1/messages", "GET"), ("/v1/messages", "PUT"), ("/v1/messages/", "POST"), ("/v1/messages/batches", "POST"),
    ("/v1/files", "POST"), ("/v1/responses/r-1/cancel", "POST"), ("/v1/threads/t-1/messages", "POST"),
    ("/v1/models", "GET"), ("/v1/models/m-1", "DELETE"), ("/v1beta/models/m-1:countTokens", "POST"),
    ("/v1beta/cachedContents", "POST"), ("/v1beta/models/x/m-1:generateContent", "POST"), ("/", "POST"),
    ("/v1beta/models/m-1%3AgenerateContent", "POST"), ("/v1%2Fmessages", "POST"), ("/V1/messages", "POST"),
])
def test_what_is_no_call_of_a_model_does_not_pass(path, method):
    assert code(index(ASK), path, method=method) is Code.DEFAULT_DENY


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/v1/models"), ("GET", "/v1/models/n-1"), ("POST", "/v1/messages/count_tokens"),
])
@pytest.mark.parametrize("methods", ["", ", methods: [POST]"])
def test_housekeeping_passes_where_it_is_said_with_methods_of_its_own(method, path, methods):
    assert code(index(ASK + methods), path, b"", method=method) is Code.DEFAULT_DENY
    assert code(index(FIRST + methods), path, b"", method=method) is Code.ALLOW


@pytest.mark.parametrize(("method", "path"), [
    ("DELETE", "/v1/models/m-1"), ("POST", "/v1/models"), ("GET", "/v1/files"), ("POST", "/v1/messages/batches"),
])
def test_housekeeping_is_nothing_else(method, path):
    assert code(index(FIRST), path, method=method) is Code.DEFAULT_DENY


@pytest.mark.parametrize("body", [
    pytest.param(b"", id="no body"),
    pytest.param(b"{}", id="no model"),
    pytest.param(b'{"model": "m-1", "model": "m-2"}', id="two models"),
    pytest.param(b'{"model": "m-1", "Model": "n-1"}', id="two spellings"),
    pytest.param(b'{"model": ["m-1"]}', id="a list"),
    pytest.param(b'{"model": "m-1"', id="half a body"),
    pytest.param(UNREADABLE, id="a body that streams"),
])
@pytest.mark.parametrize("models", ["", "models: m-*"])
def test_a_model_that_cannot_be_read_is_never_granted_and_always_refused(body, models):
    grant, rest = f"to: models.example, llm: {{{models}}}", "allow: all, to: models.example, methods: any"

    assert code(index(f"allow: a, {grant}"), "/v1/messages", body) is Code.DEFAULT_DENY
    assert code(index(f"deny: d, {grant}", rest), "/v1/messages", body) is Code.RULE_DENY
    assert code(index(f"{rest}, except: {{llm: {{{models}}}}}"), "/v1/messages", body) is Code.DEFAULT_DENY
    assert code(index(rest, f"deny: d, to: models.example, except: {{llm: {{{models}}}}}"), "/v1/messages",
                body) is Code.RULE_DENY


def test_a_body_of_another_type_names_no_model():
    assert code(index(ASK), "/v1/messages", headers=()) is Code.DEFAULT_DENY
    assert code(index(ASK), "/v1/messages", headers=((b"content-type", b"text/plain"),)) is Code.DEFAULT_DENY


def test_before_its_body_has_come_a_call_may_still_pass():
    assert expected(index(ASK), facts("/v1/messages", UNREAD)).refused is None
    assert expected(index(ASK), facts("/v1/files", UNREAD)).refused is not None


def test_a_model_with_a_slash_stands_in_no_path():
    assert code(index(ASK), "/v1/messages", b'{"model": "big/one"}') is Code.ALLOW
    for path in ("/v1beta/models/big%2Fone:generateContent", "/v1beta/models/big/one:generateContent"):
        assert code(index(ASK), path) is Code.DEFAULT_DENY


@pytest.mark.parametrize("path", [
    "/v1beta/models/m-1%3AgenerateContent", "/v1beta/models/m-1:embedContent", "/v1/complete",
])
def test_a_way_to_ask_that_is_rare_or_old_is_refused_and_never_granted(path):
    refused = index("allow: all, to: models.example, methods: any", "deny: d, to: models.example, llm: {models: m-*}")

    assert code(refused, path) is Code.RULE_DENY
    assert code(index(ASK), path) is Code.DEFAULT_DENY


def test_a_model_that_somebody_else_has_read_is_what_the_body_says():
    for model, value in (("m-1", "m-1"), (UNREADABLE, UNREADABLE)):
        fields = Fields("", JSON, UNREADABLE, model)
        assert fields.value(Part.JSON, "model") == value
        assert isinstance(fields.value(Part.JSON, "stream"), Gap)


def test_what_it_says_is_kept():
    (rule,) = compiled("rules: [{allow: r, to: x.example, llm: {models: [m-*, n], max-output-tokens: 8k, "
                       "min-output-tokens: 100, also: housekeeping}}]").policy.rules

    assert rule.where.llm == Llm(("m-*", "n"), 8000, 100, CALLS)
    assert (rule.where.methods, rule.terms.max_output_tokens, rule.terms.min_output_tokens) == (None, 8000, 100)


@pytest.mark.parametrize(("rules", "most", "least"), [
    pytest.param(["max-output-tokens: 8k"], Cap(8000, "r-0"), USUAL_LEAST_OUTPUT, id="one"),
    pytest.param(["max-output-tokens: 8k, min-output-tokens: 500", "max-output-tokens: 9k, min-output-tokens: 600"],
                 Cap(9000, "r-1"), 500, id="the most generous"),
    pytest.param(["max-output-tokens: 8k, min-output-tokens: 500", ""], None, USUAL_LEAST_OUTPUT, id="one is silent"),
    pytest.param(["max-output-tokens: 8k, models: n"], None, USUAL_LEAST_OUTPUT, id="one that does not hold"),
])
def test_how_long_an_answer_may_be_is_a_measure(rules, most, least):
    asked = [f"allow: r-{n}, to: models.example, llm: {{{rule}}}" for n, rule in enumerate(rules)]
    found = answer(index(*asked), facts("/v1/messages")).measures

    assert (found.max_output_tokens, found.min_output_tokens) == (most, least)


def test_a_limit_caps_the_answers_of_some_models():
    policy = compiled("""
        rules: [{allow: r, to: models.example, llm: {max-output-tokens: 8k}}]
        limits: [{llm: {models: m-*, max-output-tokens: 4k}}, {llm: {models: n-*, max-output-tokens: 2k}}]
    """).policy

    for model, most in (("m-1", Cap(4000, "limits-1")), ("n-1", Cap(2000, "limits-2")), ("o-1", Cap(8000, "r"))):
        body = f'{{"model": "{model}"}}'.encode()
        assert answer(Index(policy), facts("/v1/messages", body)).measures.max_output_tokens == most


@pytest.mark.parametrize(("text", "code", "said"), [
    ("rules: [{allow: r, to: x.example, llm: {modells: [m]}}]", "E103", 'did you mean "models"?'),
    ("rules: [{allow: r, to: x.example, llm: {max-output-tokens: 8K}}]", "E221", "write 8k"),
    ("rules: [{allow: r, to: x.example, llm: {also: housekeping}}]", "E226", 'did you mean "housekeeping"?'),
    ("rules: [{allow: r, to: x.example, llm: {models: ['a b']}}]", "E228", "no pattern of names in models"),
    ("rules: [{allow: r, to: x.example, llm: {max-output-tokens: 5, min-output-tokens: 6}}]", "E112", "smaller one"),
    ("rules: [{allow: r, to: x.example, stream-request: yes, llm: {}}]", "E112", "passes before it could be read"),
    ("rules: [{deny: r, to: x.example, llm: {max-output-tokens: 5}}]", "E112", "means nothing in a deny"),
    ("rules: [{allow: r, to: x.example, methods: any, except: {llm: {min-output-tokens: 5}}}]", "E112", "an exception"),
    ("never: [{llm: {max-output-tokens: 5}}]", "E112", "means nothing in an item of never"),
    ("limits: [{llm: {min-output-tokens: 5}, max-url: 1KB}]", "E112", "it caps nothing"),
    ("limits: [{llm: {models: m}}]", "E104", "limits nothing"),
    ("assert: [{denied: {from: a, to: 'https://x.example/', method: POST, llm: {}}}]", "E108", "which is for one"),
])
def test_what_cannot_be_meant_is_refused_with_what_to_write(text, code, said):
    found = findings(text)

    assert code in [finding.code for finding in found]
    assert any(said in f"{finding.message} {finding.hint}" for finding in found if finding.code == code)


@pytest.mark.parametrize(("claim", "holds"), [
    ("denied: {to: models.example, llm: {models: n-*}}", True),
    ("denied: {to: models.example, llm: {models: m-5}}", False),
    ("allowed: {to: models.example, llm: {models: [m-1, big/one]}}", True),
    ("allowed: {to: models.example, llm: {}}", False),
    ("denied: {to: models.example, methods: any, paths: /v1/files}", True),
])
def test_an_assertion_about_models_is_proved_or_refuted(claim, holds):
    assert codes(f"rules: [{{{ASK}}}]\nassert: [{claim}]") == ([] if holds else ["P801"])


@pytest.mark.parametrize(("claim", "holds"), [
    ("denied: {to: models.example, llm: {models: m-2}}", True),
    ("allowed: {to: models.example, llm: {models: m-1}}", True),
    ("denied: {to: models.example, llm: {models: m-1}}", False),
])
def test_a_rule_that_speaks_of_the_model_twice_means_both(claim, holds):
    # Asked of the JSON APIs alone: at the others the model stands in no body.
    rule = f"{{{ASK}, paths: ['/v1/messages'], json: {{model: [m-1, n-1]}}}}"

    claim = claim.replace("}}", "}, paths: [/v1/messages], content-types: application/json}")
    assert codes(f"rules: [{rule}]\nassert: [{claim}]") == ([] if holds else ["P801"])


def test_a_change_of_models_is_told_with_a_call_that_shows_it():
    old, new = (compiled(f"rules: [{{allow: r, to: models.example, llm: {{models: {models}}}}}]").policy
                for models in ("[m-1]", "[m-1, n]"))
    (change,) = difference(old, new).newly_allowed

    assert change.message == "every agent may now ask the models m-1 and n at models.example (rule r, p.yaml:2)"
    assert (change.witness.method, change.witness.body) == ("POST", '{"model": "n"}')
    assert [each.message for each in difference(new, old).newly_denied] == [
        "every agent may no longer ask the models m-1 and n at all of models.example (rule r, p.yaml:2)"]


@pytest.mark.parametrize(("asked", "reason"), [
    (("/v1/messages", b'{"model": "n-1"}'), 'the JSON field model is "n-1" and it wants m-* or big/one'),
    (("/v1/files", b""), "it is no call of the model m-* or big/one"),
    (("/v1beta/models/n-1:generateContent", b""), "it is no call of the model m-* or big/one"),
])
def test_why_a_call_does_not_pass_is_told(asked, reason):
    rules = compiled(f"rules: [{{{ASK}}}]").policy
    judged = answer(Index(rules), facts(*asked))
    misses = near_misses(rules, facts(*asked), STAND_IN)

    assert [miss.reasons for miss in misses] == [(reason,)]
    assert would_allow(rules, facts(*asked), judged, misses) == [
        f"Rule ask (p.yaml:2:9) would allow it, but {reason}."]


def test_a_call_with_which_clients_begin_does_not_miss_its_method():
    rules = compiled(f"rules: [{{{FIRST}, methods: [POST], from: a-1}}]").policy
    (miss,) = near_misses(rules, facts("/v1/models", b"", "GET"), STAND_IN)

    assert miss.reasons == ("the agent is local and it wants a-1",)


def test_a_refusal_of_reading_touches_a_grant_whose_clients_begin_by_reading():
    for rule, touched in ((FIRST, ["no"]), (ASK, [])):
        policy = compiled(f"rules: [{{{rule}, methods: [POST]}}, {{deny: no, methods: reads}}]").policy
        assert [[each.name for each in found.but_not] for found in accesses(policy)] == [touched]


def test_a_refusal_of_writing_takes_a_grant_away_whose_clients_do_not_begin_by_reading():
    for rule, kept in ((FIRST, 1), (ASK, 0)):
        policy = compiled(f"rules: [{{{rule}, methods: [POST]}}, {{deny: no, methods: [POST]}}]").policy
        assert len(accesses(policy)) == kept


def test_it_is_told_in_sentences():
    policy = compiled("rules: [{allow: r, to: x.example, llm: {models: m-1, max-output-tokens: 8k, "
                      "min-output-tokens: 300, also: housekeeping}}, {deny: s, llm: {}}]").policy
    (paragraph,) = (each for each in in_words(policy) if each.title == "Every agent")

    assert [sentence.text for sentence in paragraph.sentences] == [
        ("Allowed: any request to x.example, only calls of the model m-1 and the harmless calls with which clients "
         "begin, over https. A model's answer at most 8,000 tokens, a model's answer cut down to no fewer than 300 "
         "tokens where a budget pays for less."),
        "Refused: any request, only calls of any model."]
