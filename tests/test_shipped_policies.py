"""Every policy that comes with Governor loads without a finding and answers as its cases say."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from addons.cases import tried
from addons.policy_files import known_of_the_world, llm_hosts, load_policy, read_policy, shipped_policy
from addons.verbs.policy import policy as policy_verbs
from kernel.account_review import account_findings
from kernel.accounts import AMOUNTS, BUDGET, COUNTER, COUNTERS, RATE_LIMIT, SESSION_COUNTER
from kernel.ahead.clauses import GIT, GRAPHQL, MCP
from kernel.ahead.outlook import review_at_most
from kernel.ahead.prose import in_words
from kernel.budget import Counter
from kernel.cascade_review import cascade_findings
from kernel.cascade_section import BREAKER, CASCADE, ON_HALT
from kernel.dns_section import DNS
from kernel.errors import PolicyError
from kernel.findings import Severity
from kernel.llm_terms import LLM
from kernel.match import Index
from kernel.price_lists import PRICE
from kernel.profiles import PROFILES
from kernel.question import answer, facts_of
from kernel.verdict import Code
from kernel.vocabulary import ASSERT, ASSERTED, CERT, IDENTITY, LIMIT, NEVER, POLICY, RULE, WEBSOCKET
from tests.addons.policies import compiled

FOLDER = shipped_policy("default").parent
FOLDERS = (FOLDER, FOLDER / "needs", FOLDER / "ahead", FOLDER / "ahead" / "needs")
POLICIES = sorted(
    path for folder in FOLDERS for path in folder.glob("*.yaml") if not path.name.endswith(".cases.yaml"))
AHEAD = [path for path in POLICIES if "ahead" in path.relative_to(FOLDER).parts]


def _named(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


@pytest.mark.parametrize("path", POLICIES, ids=_named)
def test_a_shipped_policy_loads_without_a_finding(path):
    assert load_policy([path], ahead=path in AHEAD).findings == ()


@pytest.mark.parametrize("path", AHEAD, ids=_named)
def test_a_policy_for_a_later_version_governs_nothing(path):
    with pytest.raises(PolicyError) as refused:
        load_policy([path])

    assert "E180" in [finding.code for finding in refused.value.findings]


@pytest.mark.parametrize("path", POLICIES, ids=_named)
def test_a_shipped_policy_answers_as_its_cases_say_and_they_meet_every_rule(path):
    trial = tried(path.with_suffix(".cases.yaml"), ahead=path in AHEAD)

    assert [f"{each.case.name}: {each.verdict} {each.code}" for each in trial.outcomes if not each.ok] == []
    assert trial.uncovered == ()


@pytest.mark.parametrize("path", POLICIES, ids=_named)
def test_a_shipped_policy_raises_nothing_doubtful(path):
    reviewed = review_at_most(load_policy([path], ahead=path in AHEAD).policy, known_of_the_world(), int(time.time()))

    # E403 is a warning only where the rule says why it is meant.
    explained = [each for each in reviewed.findings if (each.code, each.severity) == ("E403", Severity.WARNING)]
    doubtful = [each for each in reviewed.findings if each.severity is not Severity.INFO and each not in explained]
    assert list(map(str, doubtful)) == []


@pytest.mark.parametrize("path", POLICIES, ids=_named)
def test_the_cases_of_a_shipped_policy_hold_something_that_passes_and_something_that_does_not(path):
    answers = {outcome.verdict for outcome in tried(path.with_suffix(".cases.yaml"), ahead=path in AHEAD).outcomes}

    assert "deny" in answers
    assert answers & {"allow", "throttle"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_page_of_a_folder_lists_its_policies(folder):
    page = (folder / "README.md").read_text()

    assert [path.stem for path in POLICIES if path.parent == folder and f"`{path.stem}" not in page] == []


def test_nothing_above_a_megabyte_passes_where_a_limit_says_so():
    index = Index(load_policy([FOLDER / "needs" / "03-no-large-uploads.yaml"]).policy)

    for host, size, code in (
        ("api.example.org", 10**6, Code.ALLOW),
        ("api.example.org", 10**6 + 1, Code.BODY_TOO_LARGE),
        ("artifacts.example.org", 10**6 + 1, Code.ALLOW),
    ):
        assert answer(index, facts_of("local", "POST", f"https://{host}/", size)).verdict.code is code


def test_the_shipped_policies_are_the_ones_that_are_spoken_of():
    assert {path.stem for path in POLICIES} >= {"default", "demo", "coding-agent", "research-browser", "ci-job",
                                               "air-gapped", "llm-swarm", "mcp-tools"}


EXAMPLES = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_page_on_policies_loads_and_only_a_trial_is_told(example):
    on_trial = ["W307"] if "mode: observe" in example else []
    read = compiled(example)

    assert [finding.code for finding in read.findings] == on_trial
    assert list(map(str, account_findings(read.policy))) == []
    assert list(map(str, cascade_findings(read.policy, ()))) == []


def test_the_page_on_policies_shows_every_key_of_this_version():
    whole = EXAMPLES[0] + "".join(each for each in EXAMPLES if "unmatched:" in each or "observe" in each)

    for keys in (POLICY, RULE, NEVER, LIMIT, WEBSOCKET, ASSERT, ASSERTED, IDENTITY, CERT):
        assert {key for key in keys.now if f"{key}:" not in whole} == set()
    of_sections = (BUDGET, AMOUNTS, RATE_LIMIT, COUNTERS, COUNTER, SESSION_COUNTER, CASCADE, ON_HALT, BREAKER)
    for keys in (*of_sections, LLM, PRICE, DNS):
        assert {key for key in keys.now if f"{key}:" not in "".join(EXAMPLES)} == set()


def test_the_page_on_policies_has_the_numbers_of_every_profile():
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (FOLDER / "README.md").read_text().splitlines()
            if line.startswith("| `")]
    told = {cells[0].strip("`"): cells[3:] for cells in rows if len(cells) == 6}

    for place, counted in enumerate(PROFILES.values()):
        assert {each.name: _in_short(each) for each in counted} == {name: cells[place] for name, cells in told.items()}


def _in_short(counter: Counter) -> str:
    number = next(f"{counter.limit // unit}{letter}" for letter, unit in (("M", 10**6), ("k", 1000), ("", 1))
                  if counter.limit % unit == 0)
    within = {None: "", 600: " in 10m", 3600: " in 1h"}[counter.within_seconds]
    return f"{number}{within}: {counter.then}"


AHEAD_EXAMPLES = re.findall(r"```yaml ahead\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
AHEAD_KEYS = (MCP, GIT, GRAPHQL)


@pytest.mark.parametrize("example", AHEAD_EXAMPLES)
def test_an_example_with_keys_of_later_versions_is_read_ahead_without_a_finding_and_does_not_load(example):
    assert compiled(example, known=frozenset({"claude-1", "claude-2", "rev-1"}), ahead=True).findings == ()
    with pytest.raises(PolicyError) as refused:
        compiled(example)

    assert {finding.code for finding in refused.value.findings} == {"E180"}


def test_the_page_on_policies_shows_every_key_of_later_versions():
    shown, told = "".join(AHEAD_EXAMPLES), (FOLDER / "README.md").read_text()

    for keys in (POLICY, RULE, NEVER):
        assert {key for key in keys.ahead if f"{key}:" not in shown} == set()
    for keys in AHEAD_KEYS:
        assert {key for key in keys.now if f"{key}:" not in shown and not re.search(rf"# .*\b{key}\b", told)} == set()


def test_the_tiers_of_the_page_on_policies_are_one_policy_that_answers_as_the_page_says():
    tiers = [example for example in EXAMPLES[1:] if "tier:" in example]
    index = Index(read_policy([(f"{n}.yaml", text.encode()) for n, text in enumerate(tiers)]).policy)

    def passes(agent: str, method: str, url: str) -> bool:
        return answer(index, facts_of(agent, method, url)).verdict.lets_through

    assert len(tiers) == 3
    assert passes("payments-1", "POST", "https://api.anthropic.com/v1/messages")
    assert not passes("payments-1", "POST", "https://api.openai.com/v1/responses")
    assert passes("web-1", "POST", "https://api.openai.com/v1/responses")
    assert passes("research-1", "GET", "https://example.org/")
    assert not passes("research-1", "GET", "https://gist.github.com/")


def test_every_model_host_of_the_default_policy_is_treated_as_one():
    policy = load_policy([shipped_policy("default")]).policy
    (rule,) = (rule for rule in policy.rules if rule.name == "ask-models")

    assert {pattern.name for pattern in rule.where.to or ()} <= set(llm_hosts())


@pytest.mark.parametrize("path", AHEAD, ids=_named)
def test_a_policy_looked_at_ahead_is_told_with_what_has_no_effect_yet(path):
    first, *others = in_words(load_policy([path], ahead=True).policy)

    told = " ".join([*(each.title for each in others), *(said.text for each in others for said in each.sentences)])

    assert first.title == "Not in force"
    assert "without effect yet" in told.lower()


def test_a_rule_whose_conditions_cannot_be_judged_makes_no_other_needless(tmp_path):
    policy = tmp_path / "p.yaml"
    policy.write_text("""version: 1
rules:
  - {allow: wide, to: x.example, methods: [POST], mcp: {tools: [read]}}
  - {allow: narrow, to: x.example, methods: [POST], paths: [/a]}
""")
    checked = CliRunner().invoke(policy_verbs, ["check", "--ahead", str(policy)])

    assert (checked.exit_code, "W302" in checked.output) == (0, False)
