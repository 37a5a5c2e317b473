"""Sets of words have the shortest word that their patterns leave, and none where they leave none."""

from __future__ import annotations

import pytest

from kernel.analysis.automaton import AgentIds, CanonicalPath
from kernel.analysis.language import Allowance, Lang, Pattern, Patterns, TooHard, Words

LONG = "x" * 127


def words(kind: str, allowance: Allowance | None = None) -> Words:
    kinds = {"agents": AgentIds(), "plain": CanonicalPath(split=False), "split": CanonicalPath(split=True)}
    return Words(kinds[kind], "q%2Fq" if kind == "split" else "q", allowance or Allowance())


def lang(kind: str, matching: list[str], but: list[str]) -> Lang:
    """Each text is the globs of one pattern; of paths, `2:` before them means the second reading."""
    patterns = Patterns()

    def pattern(text: str) -> Pattern:
        globs = text.removeprefix("2:").split()
        return patterns.agents(globs) if kind == "agents" else patterns.paths(globs, second=text.startswith("2:"))

    return Lang(frozenset(map(pattern, matching)), frozenset(map(pattern, but)))


AGENTS = [
    (["a*"], ["a", "b*"], "aa"), (["a*b"], ["ab", "ba*", "*c"], "aab"),
    ([], [], "a"), (["*"], ["*a*"], "b"), (["a*"], ["a"], "aa"), (["anon*"], [], "anon"), (["b*a"], ["ba"], "baa"),
    (["anonymou*"], ["anonymou"], "anonymoua"), (["anonymous*"], [], "anonymousa"), (["anonymous"], [], None),
    (["*anonymous"], [], "aanonymous"), (["*-"], [], None), (["-*"], [], None), (["*-*"], [], "a-a"),
    (["*é*"], [], None), (["a b c"], ["a"], "b"), (["cc a-b b"], ["b"], "cc"), (["*a* *b*"], ["*a*"], "b"),
    (["a*b", "*c*"], ["*a*c*b"], None), (["a*b", "*c*"], ["*cb"], "acab"), ([f"{LONG}*"], [], LONG),
    ([f"{LONG}*y"], [], f"{LONG}y"), ([f"{LONG}x*y"], [], None), ([f"{LONG}x"], [], f"{LONG}x"),
    ([f"{LONG}xx"], [], None), (["a*"], ["a* b*"], None), (["a*"], ["*"], None), (["a*", "b*"], [], None),
    (["ab*", "a*"], ["b*"], "ab"),
]  # fmt: skip
PLAIN = [
    (["/a/**"], ["/a", "/b/**"], "/a/"), (["/a/*"], ["/b", "/a/", "/c/**"], "/a/a"),
    ([], [], "/"), (["/**"], ["/"], "/a"), (["/a/*"], [], "/a/"), (["/a/*"], ["/a/"], "/a/a"), (["/a/**"], [], "/a"),
    (["/a/**"], ["/a"], "/a/"), (["/a/**"], ["/a", "/a/"], "/a/a"), (["/**/b"], ["/b"], "/a/b"), (["/*"], [], "/"),
    (["/**/b"], ["/b", "/*/b"], "/a/a/b"), (["/*"], ["/ /a* /b* /c*"], "/d"), (["/**/a/**/b"], [], "/a/b"),
    (["/.*"], [], "/.a"), (["/..*"], [], "/..a"), (["/*."], [], "/a."), (["/..."], [], "/..."), (["/./a"], [], None),
    (["/../a"], [], None), (["/a/."], [], None), (["/a/.."], [], None), (["/;*"], [], "/;"), (["/.;*"], [], None),
    (["/..;*"], [], None), (["/a;*"], [], "/a;"), (["/*%20*"], [], "/%20"), (["/*%2a*"], [], None),
    (["/*%2A*"], [], "/%2A"), (["/*%3B*"], [], "/%3B"), (["/.%3B*"], [], None), (["/.%20*"], [], "/.%20"),
    (["/*%2F*"], [], None), (["/%41*"], [], None), (["/%2D*"], [], None), (["/%7E*"], [], None),
    (["/%5B*"], [], "/%5B"), (["/%00*"], [], None), (["/%01*"], [], "/%01"), (["/%5C*"], [], None),
    (["/*%7*"], [], "/%7B"), (["/*%"], [], None), (["/*%2"], [], None), (["/a//b"], [], None), (["//"], [], None),
    (["/a/"], [], "/a/"), (["/é*"], [], None), (['/"*'], [], None), (["/a*", "/*b"], [], "/ab"),
    (["/a*b", "/a*"], ["/*b"], None), (["/c/*", "/a/**"], [], None), (["/a/b /c"], ["/c"], "/a/b"), (["/~*"], [], "/~"),
    (["/a/**"], ["/a/*"], "/a"), (["/**/x/*"], ["/x/**"], "/a/x/"),
]  # fmt: skip
SPLIT = [
    ([], [], "/%2F"), (["/a/**"], [], "/a/%2F"), (["/a/**", "2:/a/b/**"], [], "/a/%2Fb"), (["/a%2Fb"], [], "/a%2Fb"),
    (["2:/a/b"], [], "/a%2Fb"), (["2:/a/b"], ["/a%2Fb"], "/%2Fa/b"), (["2:/a/**"], ["2:/a/b"], "/%2Fa"),
    (["2:/a*"], ["/*"], "/%2F/a"), (["/*"], ["2:/*"], "/a%2F"), (["/*"], ["2:/**"], None), (["/*"], ["2:/*/**"], None),
    (["/..%2F*"], [], None), (["2:/../*"], [], None), (["/a%2F.."], [], None), (["/a%2F"], [], "/a%2F"),
    (["/a"], [], None), (["/a/%2Fb"], [], "/a/%2Fb"), (["/a%2F/b"], [], "/a%2F/b"), (["2:/a//b"], [], None),
    (["2:/x%*"], [], "/%2Fx%20"), (["2:/*%41"], [], None), (["2:/"], [], "/%2F"), (["2:/*/"], [], "/a%2F"),
    (["2:/a", "2:/b"], [], None), (["/.%2F*"], [], None), (["/*%2F.%3B*"], [], None), (["/x%2F;*"], [], "/x%2F;"),
    (["2:/a/**/b", "/a/**"], [], "/a/%2Fb"), (["/**"], ["2:/*"], "/a%2F"), (["/a%2F*"], ["2:/a/b*", "2:/a/"], "/a%2Fa"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "matching", "but", "shortest"), [
    *(("agents", *case) for case in AGENTS), *(("plain", *case) for case in PLAIN),
    *(("split", *case) for case in SPLIT),
])
def test_the_shortest_word_is_found_where_there_is_one(kind, matching, but, shortest):
    asked, known = lang(kind, matching, but), words(kind)

    assert (known.shortest(asked), known.some(asked)) == (shortest, shortest is not None)
    assert shortest is None or known.has(asked, shortest)
    assert all(known.has(asked, guess) for guess in known.guessed(asked))


def test_a_word_is_of_a_language_only_in_the_form_that_requests_have():
    assert not words("plain").has(lang("plain", ["/**"], []), "/a%2Fb")
    assert not words("split").has(lang("split", ["/**"], []), "/a")
    assert not words("agents").has(lang("agents", ["*"], []), "anonymous")
    assert not words("agents").has(lang("agents", ["a*"], []), "b")
    assert not words("agents").has(lang("agents", ["a*"], ["ab*"]), "abc")
    assert words("split").has(lang("split", ["/*", "2:/a/b"], ["/a/b"]), "/a%2Fb")


def test_a_question_that_takes_too_much_work_is_not_answered(monkeypatch):
    monkeypatch.setattr("kernel.analysis.language._MOST_OF_A_QUESTION", 3)
    monkeypatch.setattr("kernel.analysis.language._MOST_IN_ALL", 5)
    allowance = Allowance()
    for spent in (3, 2, 0, 0):
        allowance.renew()
        for _ in range(spent):
            allowance.spend()
        if spent < 3:
            with pytest.raises(TooHard):
                allowance.spend()


@pytest.mark.parametrize(("kind", "matching", "but", "states"), [
    ("agents", [], [], 2), ("agents", ["*a*", "*b*", "*c*"], [], 10),
    ("agents", ["*a*b*", "*b*a*"], ["*ab*", "*ba*"], 28),
    ("agents", ["a*"], ["b*"], 2), ("agents", ["abc*"], ["abcd*"], 4), ("agents", ["a*b", "*c*"], ["*a*c*b"], 14),
    ("agents", ["a* b*"], ["a* b* c*"], 12), ("agents", ["abc ab"], ["ab"], 0), ("agents", ["*a"], ["*a"], 0),
    ("plain", ["/**"], ["/a/**", "/b/**"], 2), ("plain", ["/a/**"], ["/a", "/a/", "/a/*"], 6),
    ("plain", ["/**/x"], ["/**/a/**"], 5), ("plain", ["/*/*/*"], ["/a/**"], 7), ("plain", ["/a/**"], ["/a/*/**"], 3),
    ("plain", ["/**/a/**", "/**/b/**"], ["/a/b/**"], 9), ("plain", ["/a/**", "/b/**"], [], 0),
    ("split", ["/a/**", "2:/a/b/**"], [], 16), ("split", ["/**"], ["2:/*"], 17), ("split", ["/*"], ["2:/**"], 1),
    ("split", ["/a/**"], ["2:/a/**"], 3), ("split", ["/**/x", "2:/x/y"], [], 32),
])
def test_a_search_looks_at_few_states(kind, matching, but, states, monkeypatch):
    monkeypatch.setattr("kernel.analysis.language._MOST_OF_A_QUESTION", states)
    known = words(kind)
    known.shortest(lang(kind, matching, but))

    monkeypatch.setattr("kernel.analysis.language._MOST_OF_A_QUESTION", states - 1)
    if states:
        with pytest.raises(TooHard):
            words(kind).shortest(lang(kind, matching, but))


@pytest.mark.parametrize(("kind", "matching", "but", "some"), [
    ("agents", ["a*"], ["*"], False), ("agents", ["*", "a*"], ["b*"], True), ("agents", ["a*"], ["a*"], False),
    ("agents", ["a*", "b*"], [], False), ("agents", ["a b"], ["a"], True), ("agents", ["a"], ["a b"], False),
    ("agents", ["a*b*c"], ["b*"], True), ("agents", ["a*"], ["*q"], True), ("agents", ["*", "a*"], ["aq*"], True),
    ("plain", ["/a/**"], ["/**"], False), ("plain", ["/a/**"], ["/b/**", "/c/*"], True),
    ("plain", ["/*/x"], ["/a/x"], True),
    ("plain", ["/a/b/**", "/c"], [], False), ("plain", ["/a*", "/ab*"], [], True),
    ("split", ["/a/**"], [], True), ("split", ["/a*"], ["/b*"], True),
    ("split", ["/a%2Fb"], ["2:/c/**"], True), ("split", ["/a/**"], ["2:/b%2Fc"], True), ("plain", [], [], True),
])  # fmt: skip
def test_whether_there_is_a_word_is_often_known_without_a_search(kind, matching, but, some, monkeypatch):
    monkeypatch.setattr("kernel.analysis.language._MOST_OF_A_QUESTION", 0)

    assert words(kind).some(lang(kind, matching, but)) is some
