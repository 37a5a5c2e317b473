"""The `dns:` section: what it says, what it may not say, and what several files say of it together."""

from __future__ import annotations

import pytest

from addons.policy_files import read_policy
from kernel.analysis.difference import Relation, difference
from kernel.dns import Dns, narrowed
from kernel.names import terms_of
from kernel.prose import in_words
from tests.addons.policies import compiled, findings

ADDRESSES = frozenset({"A", "AAAA"})


def said(text: str) -> Dns | None:
    (found,) = compiled(text).policy.dns
    return found


def test_without_a_section_names_are_answered_within_bounds():
    assert said("version: 1") is None
    assert terms_of(compiled("version: 1").policy, "any") == Dns(True, ADDRESSES, 6, 100)


@pytest.mark.parametrize(("text", "meant"), [
    ("dns: {answer: nothing}", Dns(False, ADDRESSES, 6, 100)),
    ("dns: {answer: allowed-names, types: [A, HTTPS], max-labels: 3, max-name: 60}",
     Dns(True, frozenset({"A", "HTTPS"}), 3, 60)),
    ("dns: {types: SVCB}", Dns(True, frozenset({"SVCB"}), 6, 100)),
])
def test_what_a_section_says_is_kept_with_its_types(text, meant):
    assert said(text) == meant


@pytest.mark.parametrize(("text", "code", "column", "hint"), [
    ("dns: {types: [A, TXT]}", "E180", 18, "A, AAAA, HTTPS, SVCB; a question for any other is refused"),
    ("dns: {types: [CNAME, A]}", "E180", 15, "A, AAAA, HTTPS, SVCB; a question for any other is refused"),
    ("dns: {types: [AAAAA]}", "E226", 15, 'did you mean "AAAA"?'),
    ("dns: {answer: everything}", "E226", 15, "one of: allowed-names, nothing"),
    ("dns: {type: A}", "E103", 7, 'did you mean "types"?'),
    ("dns: {max-labels: few}", "E221", 19, ""),
    ("dns: yes", "E102", 6, ""),
])
def test_what_cannot_be_meant_or_answered_is_refused_at_its_place(text, code, column, hint):
    (found,) = findings(text)

    assert (found.code, found.position.column) == (code, column)
    assert hint in found.hint


def test_the_strictest_of_several_sections_holds():
    one = Dns(True, frozenset({"A", "HTTPS"}), 4, 100)
    other = Dns(True, ADDRESSES, 6, 50)

    assert narrowed([one, other]) == Dns(True, frozenset({"A"}), 4, 50)
    assert narrowed([one, Dns(False)]).answers is False


def test_a_tier_narrows_the_names_of_those_agents_alone_that_it_binds():
    texts = ("version: 1\ntier: platform\ndns: {max-labels: 5}\n",
             "version: 1\ntier: team\nfor: [payments-*]\ndns: {answer: nothing}\n")
    policy = read_policy([(f"{n}.yaml", text.encode()) for n, text in enumerate(texts)]).policy

    assert terms_of(policy, "payments-1") == Dns(False, ADDRESSES, 5, 100)
    assert terms_of(policy, "coder-1") == Dns(True, ADDRESSES, 5, 100)


@pytest.mark.parametrize(("text", "sentence"), [
    ("dns: {answer: nothing}", "No name is answered."),
    ("dns: {}",
     ("Only names to which some rule could lead are answered, with records of A and AAAA, where they have at most 6 "
      "labels and 100 characters, or are written out here.")),
    ("dns: {types: [A, HTTPS], max-labels: 3}",
     ("Only names to which some rule could lead are answered, with records of A and HTTPS, where they have at most 3 "
      "labels and 100 characters, or are written out here. HTTPS are answered as absent.")),
])
def test_a_section_is_told_in_words(text, sentence):
    paragraphs = {each.title: [one.text for one in each.sentences] for each in in_words(compiled(text).policy)}

    assert paragraphs["Names that are looked up"] == [sentence]


@pytest.mark.parametrize(("old", "new", "relation", "told"), [
    ("", "dns: {types: [A, AAAA], max-labels: 6, max-name: 100}", Relation.EQUAL, []),
    ("dns: {answer: nothing}", "", Relation.LOOSER, ["names are now looked up"]),
    ("", "dns: {answer: nothing}", Relation.STRICTER, ["names are no longer looked up"]),
    ("", "dns: {types: [A, AAAA, HTTPS]}", Relation.LOOSER,
     ["questions for records of the type HTTPS are now answered"]),
    ("dns: {max-labels: 8}", "dns: {max-name: 200}", Relation.INCOMPARABLE,
     ["names of 101 to 200 characters are now answered", "names of 7 to 8 labels are no longer answered"]),
])
def test_another_section_is_a_difference(old, new, relation, told):
    rules = "rules: [{allow: a, to: .example.org, methods: any}]\n"
    found = difference(compiled(rules + old).policy, compiled(rules + new).policy)

    assert (found.relation, [change.message for change in found.changed]) == (relation, told)
