"""The dashboard, the alerts and their runbooks name what exists.

Whether the expressions return data, tests/e2e/test_dashboards.py shows.
"""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from addons.cli import VERBS
from addons.metrics import Metrics
from addons.verbs import agents as agents_verbs

FOLDER = Path(__file__).resolve().parents[2] / "dashboards"
DASHBOARD = json.loads((FOLDER / "governor.json").read_text())
ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
README = (FOLDER / "README.md").read_text()
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
METRIC = re.compile(r"\bgovernor_[a-z_]+\b(?!/|\.)")
OPTIONS = {"governor_metrics", "governor_policy"}


def exposed():
    names = set()
    for family in text_string_to_metric_families(Metrics("1", "2").render()[0].decode()):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count", ""]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    return names


@pytest.mark.parametrize("file", ["governor.json", "alerts.yaml", "prometheus.yaml", "README.md"])
def test_every_metric_that_is_named_exists(file):
    named = set(METRIC.findall((FOLDER / file).read_text())) - OPTIONS

    assert named - exposed() == set()


def test_every_metric_that_exists_is_on_the_dashboard():
    shown = set(METRIC.findall(json.dumps(DASHBOARD)))
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed()}

    assert families - {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown} == set()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_how_bad_and_where_its_runbook_is(rule):
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert {"summary", "description", "runbook"} == set(rule["annotations"])
    assert rule["annotations"]["runbook"] == f"dashboards/README.md#{rule['alert'].lower()}"
    assert f"\n### {rule['alert']}\n" in README


def test_every_runbook_has_its_alert_and_names_a_command():
    sections = dict(re.findall(r"\n### (\w+)\n(.*?)(?=\n### |\Z)", README, re.DOTALL))

    assert sections.keys() == {rule["alert"] for rule in ALERTS}
    assert [name for name, text in sections.items() if "`" not in text] == []


def test_runbooks_name_only_verbs_that_exist():
    assert set(re.findall(r"`governor (\w+)", README)) <= VERBS.keys()
    assert set(re.findall(r"`governor agents (\w+)", README)) <= set(agents_verbs.agents.commands)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_has_a_description_a_unit_and_the_variables(panel):
    defaults = panel["fieldConfig"]["defaults"]

    assert panel["description"]
    assert defaults["unit"]
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        selectors = re.findall(r"(?:governor_[a-z_]+|\bup)\{([^}]*)\}", target["expr"])
        assert selectors
        assert all('job=~"$job",instance=~"$instance"' in selector for selector in selectors)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_counter_is_never_shown_raw(panel):
    for target in panel["targets"]:
        for place in re.finditer(r"governor_[a-z_]+(?:_total|_bucket|_sum|_count)\{", target["expr"]):
            assert re.search(r"(rate|increase)\((sum\()?$", target["expr"][: place.start()])


def test_panels_have_their_own_ids_and_places():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]

    assert len(ids) == len(set(ids))
    assert not [(one["title"], other["title"]) for one, other in combinations(DASHBOARD["panels"], 2)
                if overlap(one["gridPos"], other["gridPos"])]  # fmt: skip
    assert max(panel["gridPos"]["x"] + panel["gridPos"]["w"] for panel in DASHBOARD["panels"]) == 24


def overlap(one, other):
    return (one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
            and one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"])  # fmt: skip


def test_the_rows_answer_the_five_questions():
    assert [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"] == [
        "Are we up", "Are we blocking wrongly", "Who is spending", "Is the evidence safe",
        "Latency we add against the latency of the origins",
    ]  # fmt: skip


def test_every_variable_that_is_used_is_declared():
    declared = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(DASHBOARD)))

    assert used - declared == set()
