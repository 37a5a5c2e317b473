"""What a model costs is what the policy says, else what the table says; and a list of prices is read strictly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.policy_files import read_policy
from addons.yaml_nodes import compose
from kernel.errors import PolicyError
from kernel.price_lists import Origin, read_table
from kernel.prices import NO_PRICES, Price, Priced, Prices
from kernel.prose import in_words
from tests.addons.policies import compiled, findings

TABLE = """table: prices
providers:
  openai:
    source: a page
    date: 2026-11-27
    prices:
      - {models: [m, m-2*], input: 1.25, cached: 0.125, written: 2, output: 10, context: 400k, longest-output: 128k}
      - {models: m-mini, input: 0.25, output: 2, context: 1M, longest-output: 64k}
"""


def price(cost: int) -> Price:
    return Price(cost, cost, cost, cost, 1000, 1000)


def prices(own: dict[str, int], table: dict[str, int]) -> Prices:
    def listed(each: dict[str, int]) -> dict[str, tuple[Priced, ...]]:
        return {"openai": tuple(Priced((glob,), price(cost)) for glob, cost in each.items())}

    return Prices(listed(own), listed(table))


def test_a_price_is_kept_exactly():
    found, origins = read_table(compose(TABLE.encode(), "prices.yaml"))

    assert found.of("openai", "m") == Price(1_250_000, 125_000, 2_000_000, 10_000_000, 400_000, 128_000)
    assert found.of("openai", "m-2026-01-02") == found.of("openai", "m")
    assert found.of("openai", "m-mini") == Price(250_000, 250_000, 250_000, 2_000_000, 1_000_000, 64_000)
    assert origins == (Origin("openai", "a page", "2026-11-27"),)


@pytest.mark.parametrize(("provider", "model"), [("openai", "m-1"), ("openai", "M"), ("google", "m"), ("", "")])
def test_a_model_that_no_list_names_has_no_price(provider, model):
    assert read_table(compose(TABLE.encode(), "prices.yaml"))[0].of(provider, model) is None
    assert NO_PRICES.of(provider, model) is None


@pytest.mark.parametrize(("own", "table", "cost"), [
    pytest.param({}, {"m": 1}, 1, id="the table"),
    pytest.param({"m": 2}, {"m": 1}, 2, id="the policy goes before the table"),
    pytest.param({"*": 2}, {"m": 1}, 2, id="also with a pattern"),
    pytest.param({"n": 2}, {"m": 1}, 1, id="what the policy does not say"),
    pytest.param({}, {"m*": 3, "m": 1, "*": 2}, 1, id="a name goes before patterns"),
    pytest.param({}, {"*": 3, "m*": 1}, 1, id="the longest pattern"),
    pytest.param({}, {"*m": 3, "m*": 1}, 3, id="of patterns of one length the dearest"),
])
def test_the_nearest_of_several_prices_counts(own, table, cost):
    assert prices(own, table).of("openai", "m") == price(cost)


@given(st.lists(st.text("mn*", min_size=1, max_size=3), max_size=5), st.text("mn", min_size=1, max_size=3), st.data())
def test_the_order_of_a_list_does_not_matter(globs, model, data):
    listed = [Priced((glob,), price(number)) for number, glob in enumerate(globs)]

    found = Prices(table={"p": tuple(listed)}).of("p", model)

    assert Prices(table={"p": tuple(data.draw(st.permutations(listed)))}).of("p", model) == found


def test_a_policy_says_prices_of_its_own():
    policy = compiled("""
        prices:
          openai:
            - {models: ours-*, input: 0, output: 0.000001, context: 8k, longest-output: 4k}
    """).policy

    assert policy.prices.of("openai", "ours-1") == Price(0, 0, 0, 1, 8000, 4000)


def item(keys: str) -> str:
    return f"prices: {{openai: [{{{keys}}}]}}"


WHOLE = "models: m, input: 1, output: 2, context: 8k, longest-output: 4k"


@pytest.mark.parametrize(("text", "code", "said"), [
    (item("models: m, input: 1"), "E104", 'a price needs "output:"'),
    (item(WHOLE.replace("input: 1", "input: $1")), "E220", "write 1"),
    (item(WHOLE.replace("input: 1", "input: -1")), "E220", "write US dollars"),
    (item(WHOLE.replace("input: 1", "input: 0.1234567")), "E220", "at most six places"),
    (item(WHOLE.replace("input: 1", "input: 1000000001")), "E220", "write a smaller amount"),
    (item(WHOLE.replace("8k", "0")), "E221", "write a number above 0"),
    (item(WHOLE.replace("models: m", "models: 'a b'")), "E228", "no pattern of names in models"),
    (item(f"{WHOLE}, cache-read: 1"), "E112", "write cached"),
    (item(f"{WHOLE}, longest: 1"), "E103", "unknown key"),
    (f"prices: {{openai: [{{{WHOLE}}}, {{{WHOLE}}}]}}", "E107", "m has two prices"),
    (item(WHOLE.replace("models: m", "models: [m, m]")), None, ""),
    ("prices: {openai: {}}", "E102", "is a list"),
    ("prices: {opnai: []}", "E228", 'did you mean "openai"?'),
    ("prices: {llm.corp.example: []}", None, ""),
    ("prices: {LLM.corp.example: []}", "E228", "or the host"),
    ("prices: {'a b.example': []}", "E228", "or the host"),
    ("prices: []", "E102", "names and values"),
])
def test_a_price_that_cannot_be_meant_is_refused_with_what_to_write(text, code, said):
    found = findings(text)

    assert (code is None) is (found == ())
    assert code is None or any(said in f"{each.message} {each.hint}" for each in found if each.code == code)


def test_prices_stand_in_the_first_tier_alone():
    lower = f"version: 1\n{item(WHOLE)}\n"
    with pytest.raises(PolicyError) as refused:
        read_policy([("a.yaml", b"version: 1\n"), ("b.yaml", lower.encode())])

    assert [(each.code, each.position.file) for each in refused.value.findings] == [("E112", "b.yaml")]


@pytest.mark.parametrize("change", [
    ("table: prices\n", ""), ("    date: 2026-11-27\n", ""), ("output: 10,", ""), ("providers:", "provider:"),
])
def test_a_table_with_a_fault_is_told_of_it(change):
    with pytest.raises(PolicyError) as refused:
        read_table(compose(TABLE.replace(*change).encode(), "prices.yaml"))

    assert all(each.position.file == "prices.yaml" for each in refused.value.findings)


def test_prices_are_told_in_sentences_and_what_follows_where_there_is_none():
    text = (item(WHOLE.replace("input: 1", "input: 0.5, cached: 0.05")) +
            "\nbudgets: [{budget: b, each: {usd: 5}, every: day, when-used: {100%: deny}}]")
    (paragraph,) = (each for each in in_words(compiled(text).policy) if each.title == "What models cost here")

    assert [sentence.text for sentence in paragraph.sentences] == [
        ("A million tokens of m of openai cost 0.5 USD for input, 0.05 USD for input that was cached, 0.5 USD for "
         "input that is cached and 2 USD for output; it takes 8,000 tokens and gives 4,000 at most."),
        "A model without a known price is not asked at all where a budget of money or tokens counts."]
