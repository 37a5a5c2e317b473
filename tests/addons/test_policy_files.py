"""Policy files and data tables: every trap of YAML has its own words, and only declared errors come out."""

from __future__ import annotations

import gc
import json
from ipaddress import ip_network
from pathlib import Path
from random import Random

import pytest
import yaml
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from addons import policy_files, yaml_nodes
from addons.policy_files import PolicyMissing, load_policy
from addons.yaml_nodes import DEEPEST, LARGEST_BYTES, compose
from kernel import normal
from kernel.accounts import AMOUNTS, BUDGET, COUNTER, COUNTERS, RATE_LIMIT
from kernel.ahead.clauses import GIT, GRAPHQL, MCP
from kernel.cascade_section import BREAKER, CASCADE, ON_HALT
from kernel.dns_section import DNS
from kernel.errors import PolicyError
from kernel.findings import Finding, Severity
from kernel.llm_terms import LLM
from kernel.policy import PortRange
from kernel.vocabulary import ASSERT, ASSERTED, CERT, IDENTITY, POLICY, RULE, WEBSOCKET
from tests.addons.policies import compiled, findings
from tests.conftest import SCALE, scaled

TRAPS = [
    ("an unquoted star and dot", "a: *.x.com\n", 1, 4, 'quote it: "*.x.com", or write .x.com for x.com and everything'),
    ("an unquoted star in a list", "a: [*.x.com, b]\n", 1, 5, '"*.x.com"'),
    ("an alias", "a: &x b\nc: *x\n", 1, 4, "anchors are not read (&x)"),
    ("a word with a star before it", "a: *claude\n", 1, 4, 'quote it: "*claude"'),
    ("a star alone", "a: *\n", 1, 4, 'quote it: "*"'),
    ("an anchor on a list", "a: &x [b]\n", 1, 4, "anchors are not read (&x)"),
    ("a tag", "a: !!python/name:os.system x\n", 1, 4, "tags are not read"),
    ("a tag on a mapping", "a: !x {b: c}\n", 1, 4, "tags are not read (!x)"),
    ("an exclamation mark", "a: !evil.example\n", 1, 4, 'quote text that begins with "!"'),
    ("a second document", "a: b\n---\nc: d\n", 2, 1, "a second document begins here"),
    ("a directive", "%YAML 1.1\n---\na: b\n", 1, 1, "directives are not read"),
    ("a tab before a key", "a:\n\tb: c\n", 2, 1, "a tab stands where YAML wants spaces"),
    ("a tab before a key of a list item", "a:\n  - b: c\n\t  d: e\n", 3, 1, "a tab stands"),
    ("more than a number", "a: > 5\n", 1, 4, 'quote it: "> 5"'),
    ("more than a number in a mapping", "a: {b: >= -5}\n", 1, 8, 'quote it: ">= -5"'),
    ("an at sign", "a: @scope/name\n", 1, 4, "nothing can begin with @ (quote the text)"),
    ("a backquote", "a: `x`\n", 1, 4, "nothing can begin with `"),
    ("a percent sign", "a: %2F\n", 1, 4, "nothing can begin with %"),
    ("a second colon", "a: use: this\n", 1, 7, 'a second ": " in one line'),
    ("a key too far right", "a: b\n  c: d\n", 2, 4, "indented in a way that fits nothing above it"),
    ("an open quote", "a: 'b\nc: d\n", 1, 4, "this quote is never closed"),
    ("an open bracket", "a: [b\nc: d\n", 1, 4, "this [ is never closed"),
    ("an open brace", "a: {b: c\n", 1, 4, "this { is never closed"),
    ("no text", "", 1, 1, "the file says nothing (a policy begins with: version: 1)"),
    ("only comments", "# nothing\n", 1, 1, "the file says nothing"),
    ("a byte order mark", "\ufeffa: b\n", 1, 1, "byte order mark"),
    ("a reversed text", "a: b\nc: \u202e d\n", 2, 4, "U+202E"),
    ("a line separator", "a: b\u2028c: d\n", 1, 5, "U+2028"),
    ("a next line", "a: b\x85c: d\n", 1, 5, "U+0085"),
    ("a NUL", "a: b\x00\n", 1, 5, "U+0000"),
    ("an escape sequence", "a: \x1b[2J\n", 1, 4, "U+001B"),
    ("too deep", "[" * (DEEPEST + 1), 1, DEEPEST + 1, f"more than {DEEPEST} levels"),
    ("far too deep", "[" * 300_000, 1, DEEPEST + 1, f"more than {DEEPEST} levels"),
    ("far too deep in blocks", "- " * 10_000 + "x", 1, 2 * DEEPEST + 1, f"more than {DEEPEST} levels"),
    ("a billion laughs", "a: &a [x, x]\nb: &b [*a, *a]\n", 1, 4, "anchors are not read"),
]


@pytest.fixture(params=["C", "Python"])
def parser(request, monkeypatch):
    """Both of pyyaml's parsers: a machine without libyaml has only the slow one."""
    monkeypatch.setattr(yaml_nodes, "_PARSER", yaml.CLoader if request.param == "C" else yaml.Loader)


def refusal(data: bytes):
    with pytest.raises(PolicyError) as refused:
        compose(data, "p.yaml")
    (finding,) = refused.value.findings
    assert finding.code == "E100"
    return finding


@pytest.mark.parametrize(
    ("text", "line", "column", "said"), [pytest.param(*rest, id=name) for name, *rest in TRAPS])
@pytest.mark.usefixtures("parser")
def test_a_trap_of_yaml_is_refused_in_its_own_words_at_its_place(text, line, column, said):
    finding = refusal(text.encode())

    assert said in f"{finding.message} ({finding.hint})"
    assert (finding.position.line, finding.position.column) == (line, column)


@pytest.mark.parametrize(
    ("data", "line", "column", "said"),
    [
        pytest.param(b"\xff\xfea\x00:\x00", 1, 1, "UTF-16", id="UTF-16"),
        pytest.param(b"a: b\nc: caf\xe9\n", 2, 7, "byte 0xe9 is not UTF-8", id="Latin-1"),
        pytest.param(b"a: \xed\xa0\x80\n", 1, 4, "not UTF-8", id="a lone surrogate"),
        pytest.param(b"a" * (LARGEST_BYTES + 1), 1, 1, "at most 8388608 bytes are read", id="too large"),
    ],
)
def test_a_file_that_is_no_text_is_refused(data, line, column, said):
    finding = refusal(data)

    assert said in finding.message
    assert (finding.position.line, finding.position.column) == (line, column)


@pytest.mark.usefixtures("parser")
def test_what_is_written_is_what_is_read():
    parts = compose(b'a: NO\nb: [22:30, 0443, ~, "x", 1.10]\nc: yes\n', "p.yaml").root.parts

    assert [parts[1].text, *(item.text for item in parts[3].items), parts[5].text] == [
        "NO", "22:30", "0443", "~", "x", "1.10", "yes"]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_places_count_from_one_whatever_ends_the_lines(ending):
    document = compose(f"a: b{ending}cc:{ending}  - d{ending}".encode(), "p.yaml")
    last = document.root.parts[3].items[0]

    assert (last.mark.line + 1, last.mark.column + 1) == (3, 5)


def test_the_digest_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes(b"version: 1 # \xc3\xa4\n")

    assert load_policy([path]).policy.digest == blake3(path.read_bytes()).hexdigest()


def test_a_policy_that_is_not_there_is_another_error_than_one_that_is_wrong(tmp_path):
    with pytest.raises(PolicyMissing, match=r"nowhere\.yaml: No such file"):
        load_policy([tmp_path / "nowhere.yaml"])
    with pytest.raises(PolicyMissing, match="Is a directory"):
        load_policy([tmp_path])


def test_collection_of_garbage_goes_on_after_a_load(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("version: 2\n")

    with pytest.raises(PolicyError):
        load_policy([path])

    assert gc.isenabled()


TYPED_TRAPS = [
    ("a norwegian country", "rules: [{allow: NO, to: x.example, methods: [GET]}]", None, ""),
    ("a time of day", "rules: [{allow: r, to: x.example, methods: [GET], ports: 22:30}]", "E206", "443 or 8000-8999"),
    ("a port with a leading zero", "rules: [{allow: r, to: x.example, methods: [GET], ports: 0443}]", None, ""),
    ("a version with a point", "version: 1.0", "E109", "write version: 1"),
    ("a true for a yes", "identity: {proxy-auth: true}", "E102", "proxy-auth is yes"),
    ("a number with underscores", "limits: [{max-url: 1_000}]", "E209", "is not a size"),
    ("a method that is a word of YAML", "rules: [{deny: r, methods: [ON]}]", None, ""),
    ("a size with a point", "limits: [{max-url: 1.10}]", "E209", "is not a size"),
    ("a null", "rules: [{deny: r, to: ~}]", "E201", "is not a host"),
    ("nothing at all", "rules: [{deny: r, to: }]", "E102", "is empty"),
    ("a comment that swallows a channel", "contact: #agent-platform", "E102", 'text that begins with "#" is a comment'),
    ("a key that stands twice", "rules: [{deny: r, to: a.example, to: b.example}]", "E101", "stands twice"),
    ("a merge key", "rules: [{deny: r, <<: {to: a.example}}]", "E103", "merge keys are not read"),
    ("a key that is nearly one", "rules: [{deny: r, metods: [GET]}]", "E103", 'did you mean "methods"?'),
]


@pytest.mark.parametrize(
    ("text", "code", "said"), [pytest.param(*rest, id=name) for name, *rest in TYPED_TRAPS])
def test_what_yaml_would_turn_into_something_else_stays_text_or_is_refused(text, code, said):
    found = findings(text)

    assert [finding.code for finding in found if finding.severity is Severity.ERROR] == ([code] if code else [])
    assert any(said in f"{finding.message} {finding.hint}" for finding in found) or not code


def test_the_words_of_yaml_are_names_like_any_other():
    (rule,) = compiled(
        "rules: [{allow: NO, to: x.example, methods: [ON], ports: 0443}]").policy.rules

    assert (rule.name, rule.where.methods, rule.where.ports) == ("NO", {"ON"}, (PortRange(443, 443),))


@pytest.mark.parametrize("name", ["a\0b.yaml", "a" * 300, "absent.yaml", "."])
def test_what_cannot_be_read_is_missing_by_its_name(tmp_path, name):
    for read in (policy_files.read, policy_files.read_file):
        with pytest.raises(policy_files.PolicyMissing, match=r"^\S+: \S+"):
            read(tmp_path / name)


def test_every_metadata_range_is_a_range_that_is_not_global():
    for text in policy_files.metadata_ranges():
        assert ip_network(text).num_addresses == 1
    assert "169.254.169.254" in policy_files.metadata_ranges()


def test_every_llm_host_is_in_canonical_form():
    assert all(normal.host(host).name == host for host in policy_files.llm_hosts())


def test_the_public_suffix_list_is_whole_and_in_a_labels():
    rules = policy_files.public_suffixes()

    assert len(rules) > 9000
    assert {"com", "co.uk", "*.ck", "!www.ck", "github.io", "xn--p1ai"} <= set(rules)
    assert all(rule.isascii() and rule == rule.lower() for rule in rules)


def test_the_data_says_where_it_comes_from_and_of_when():
    data = policy_files.shipped_policy("default").parent / "data"

    for path in (path for path in data.iterdir() if path.name != "README.md"):
        head = path.read_text()[:1500].lower()
        assert "source:" in head, path.name
        assert "date:" in head or "version 20" in head, path.name


WORDS = st.sampled_from(
    ["version", "1", "rules", "allow", "deny", "to", "from", "methods", "paths", "except", "never", "assert",
     "allowed", "agents", "destinations", "x.com", '"*.x.com"', "*.x", ".x.com", "10.0.0.0/8", "metadata",
     "https://x.com/**", "GET", "reads", "any", "/a/**", "443", "yes",
     "&a", "*a", "!t", "---", "|", ">", "#", "''", "\"\\x1b\"", "~", "\t"])
GLUE = st.sampled_from([": ", "\n", "\n  ", "\n  - ", "\n    ", ", ", " ", "[", "]", "{", "}", "- "])
SOUP = st.lists(st.one_of(WORDS, GLUE), max_size=60).map("".join)


def _findings(data: bytes, folder: Path, *, ahead: bool = False) -> tuple[Finding, ...]:
    path = folder / "p.yaml"
    path.write_bytes(data)
    try:
        return load_policy([path], ahead=ahead).findings
    except PolicyError as refused:
        return refused.findings or pytest.fail("refused without a finding")


@settings(max_examples=scaled(150))
@given(text=SOUP)
def test_no_soup_of_words_raises_anything_else(text, tmp_path_factory):
    found = _findings(f"version: 1\n{text}".encode(), tmp_path_factory.getbasetemp())

    assert all(str(finding).isprintable() for finding in found)


@settings(max_examples=scaled(100))
@given(data=st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data, tmp_path_factory):
    found = _findings(data, tmp_path_factory.getbasetemp())

    assert all(str(finding).isprintable() for finding in found)


VALUES = st.recursive(
    st.one_of(WORDS, st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=4)), max_leaves=12)
KEYS = st.sampled_from(["contact", "agents", "destinations", "rules", "never", "assert", "identity"])
RULE_KEYS = st.sampled_from(
    ["allow", "deny", "from", "to", "address", "methods", "paths", "ports", "schemes", "except", "tell", "why"])
RULES = st.lists(st.dictionaries(RULE_KEYS, VALUES, max_size=6), max_size=3)


@settings(max_examples=scaled(150))
@given(document=st.dictionaries(KEYS, VALUES), rules=RULES)
def test_no_well_formed_nonsense_raises_anything_else(document, rules):
    text = yaml.safe_dump({"version": "1", **document, "rules": rules}, default_style='"')

    assert all(str(finding).isprintable() for finding in findings(text))


# Policies as people write them, with slips: every key of the language, whatever stands under it.
SECTIONS = sorted((POLICY.now | POLICY.later | POLICY.ahead) - {"version", "rules"})
KEYS_OF_RULES = sorted(RULE.now | RULE.later | RULE.ahead)
SUBKEYS = sorted(set().union(*(keys.now | keys.ahead for keys in (
    LLM, MCP, GIT, GRAPHQL, BUDGET, AMOUNTS, RATE_LIMIT, COUNTERS, COUNTER, CASCADE, ON_HALT, BREAKER, DNS, IDENTITY,
    CERT, WEBSOCKET, ASSERT, ASSERTED))))
AMOUNT_WORDS = ["5", "0.25", "4M", "10MB", "10m", "80%", "100%", "60/minute", "throttle 6/minute", "deny", "halt",
                "tell", "day", "session", "UTC", "secrets", "OVERRISK", "coders", "opaque", "query", "balanced", "A"]
PLAIN_WORDS = ["1", "x.example", "*.x.example", ".x.example", "10.0.0.0/8", "metadata", "https://x.example/**", "GET",
               "reads", "any", "/a/**", "443", "yes", "no", "~", "", "\u0665", "\x1b", "a b", "*", "NO", "22:30"]
DOCUMENTS_A_SEED = 20


def _slipped(chance: Random) -> dict[str, object]:
    """A policy with a few sections and rules, under whose keys stands what belongs there or somewhere else."""
    document: dict[str, object] = {"version": "1", "agents": {"coders": ["claude-*", "c-1"]}}
    for section in chance.sample(SECTIONS, chance.randrange(4)):
        document[section] = _nested(chance, 3)
    document["rules"] = [
        {key: _nested(chance, 3) for key in chance.sample(KEYS_OF_RULES, chance.randrange(7))}
        for _ in range(chance.randrange(4))]
    return document


def _nested(chance: Random, depth: int) -> object:
    shape = chance.randrange(4 if depth else 2)
    if shape == 3:
        keys = chance.sample([*SUBKEYS, *AMOUNT_WORDS], chance.randrange(5))
        return {key: _nested(chance, depth - 1) for key in keys}
    if shape == 2:
        return [_nested(chance, depth - 1) for _ in range(chance.randrange(4))]
    return chance.choice([AMOUNT_WORDS, PLAIN_WORDS][shape])


@settings(max_examples=5000 if SCALE >= 10 else scaled(100))
@given(seed=st.integers(0, 2**64))
def test_no_policy_with_slips_raises_anything_else(seed):
    chance = Random(seed)
    for _ in range(DOCUMENTS_A_SEED):
        text = "".join(f"{key}: {json.dumps(said)}\n" for key, said in _slipped(chance).items())
        for ahead in (False, True):
            found = findings(text, ahead=ahead)

            assert all(str(finding).isprintable() for finding in found)
