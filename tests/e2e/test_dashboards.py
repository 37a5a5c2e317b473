"""Every expression of the dashboard and of the alerts, asked of a real Prometheus that scrapes a real metrics port."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from addons.metrics import Gauge, Metrics, Side
from addons.metrics_server import MetricsServer
from kernel.standings import Total
from tests.e2e.prometheus import scraping

FOLDER = Path(__file__).resolve().parents[2] / "dashboards"
CASES = yaml.safe_load(Path(__file__).with_name("alerts_cases.yaml").read_text())
DASHBOARD = json.loads((FOLDER / "governor.json").read_text())
EXPRESSIONS = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", [])
]
ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
VARIABLES = {"$__rate_interval": "10s", "$__range": "30s", "$job": "governor", "$instance": ".*", "$agent": ".*"}

# A Governor has none of these series while nobody is halted, its policy has no budget and its home no anchor.
AT_TIMES = re.compile(r"governor_(?:budget_\w+|halted|audit_anchor_age_seconds)")
# They speak of the machine that runs the test, not of Governor.
OF_THE_MACHINE = {"GovernorDiskAlmostFull", "GovernorDiskFullSoon"}

TOTAL = Total("daily", "requests", 100, 40, 2, 0)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("promtool")),
        reason="prometheus and promtool are not installed (Debian: prometheus)",
    ),
]


@contextlib.contextmanager
def repeating(act, pause):
    """Do `act` again and again in a thread."""
    ended = threading.Event()

    def work():
        while not ended.wait(pause):
            act()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def fed_server():
    """A metrics port whose numbers move as they do under traffic."""
    metrics = Metrics("1", "2")
    metrics.policy_loaded("ab" * 32, "enforce", 1.7e9)
    for gauge, value in ((Gauge.READY, 1), (Gauge.OPEN_STREAMS, 2), (Gauge.UNANCHORED, 9), (Gauge.DISK_FREE, 5e10),
                         (Gauge.CA_EXPIRY, 4e9), (Gauge.ANCHOR_OVERDUE, 0), (Gauge.POOL_UP, 1)):  # fmt: skip
        metrics.read(gauge, lambda value=value: value)

    metrics.read_standings(lambda: {"coder-9": "OVERRISK"}, lambda: [TOTAL])
    metrics.read_anchors(lambda: {"file": 3.0})
    metrics.read_held_back(lambda: {"throttle": 1})
    metrics.tls_failure(Side.CLIENT)

    def traffic():
        metrics.step()
        metrics.decision("allow", "ALLOW", "coder-1", "read", 0.00004)
        metrics.decision("deny", "RULE_DENY", "coder-1", "no-gists", 0.00004)
        metrics.entry("decision")
        metrics.preventive("throttle", degraded=False)
        metrics.commit(0.001)
        metrics.outcome(0.02)

    server = MetricsServer(("127.0.0.1", 0), metrics, lambda: True, dict)
    server.start()
    try:
        with repeating(traffic, 0.05):
            yield f"127.0.0.1:{server.address[1]}"
    finally:
        server.stop()


@contextlib.contextmanager
def governed_traffic(place):
    """A live Governor with allowed and refused requests going through it."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": place.governor.proxy}))
    paths = [f"{place.http.url}/a", f"{place.http.url}/denied/b"]
    urls = [*paths, "http://gist.example.org/", "http://unlisted.example.org/"]

    def traffic():
        for url in urls:
            with contextlib.suppress(urllib.error.HTTPError), opener.open(url, timeout=10) as response:
                response.read()

    with repeating(traffic, 0.3):
        yield urllib.parse.urlsplit(place.governor.metrics).netloc


@pytest.fixture(scope="module", params=["fed", "live"])
def prometheus(request, tmp_path_factory):
    """Prometheus after some seconds on a metrics port: one that a test feeds, and that of a real Governor."""
    source = fed_server() if request.param == "fed" else governed_traffic(request.getfixturevalue("place"))
    folder = tmp_path_factory.mktemp("prometheus")
    with source as address, scraping(folder, [address], FOLDER / "alerts.yaml") as prometheus:
        prometheus.wait_for("count_over_time(governor_ready[1m]) >= 8")
        prometheus.live = request.param == "live"
        yield prometheus


def concrete(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_panel_returns_data(prometheus, expression):
    result = prometheus.query(concrete(expression))

    assert result or (prometheus.live and AT_TIMES.search(expression))
    assert all(series["value"][1] != "NaN" for series in result)


@pytest.mark.parametrize("expression", [DASHBOARD["annotations"]["list"][0]["expr"]])
def test_an_annotation_is_answered(prometheus, expression):
    assert isinstance(prometheus.query(concrete(expression)), list)


@pytest.mark.parametrize("variable", [v for v in DASHBOARD["templating"]["list"] if v["type"] == "query"],
                         ids=lambda variable: variable["name"])  # fmt: skip
def test_a_variable_has_values(prometheus, variable):
    selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", concrete(variable["query"]["query"])).groups()

    assert prometheus.get(f"label/{label}/values", **{"match[]": selector})


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_is_answered_from_series_that_exist_and_does_not_fire(prometheus, rule):
    for selector in re.findall(r"\b(?:governor_[a-z_]+|up)\b", rule["expr"]):
        found = prometheus.query(f'count({selector}{{job="governor"}})')
        assert found or (prometheus.live and AT_TIMES.fullmatch(selector)), f"no series of {selector}"
    firing = prometheus.query(rule["expr"])

    assert firing == [] or rule["alert"] in OF_THE_MACHINE


def test_prometheus_itself_accepts_the_rules(prometheus):
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in ALERTS}
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []


@pytest.fixture(scope="module")
def rule_tests(tmp_path_factory):
    """alerts_cases.yaml as promtool reads it: what an alert says beside its summary stands in alerts.yaml alone."""
    file = tmp_path_factory.mktemp("promtool") / "tests.json"
    tests = [rule_test(rule, CASES[rule["alert"]], fires) for rule in ALERTS for fires in (True, False)]
    rules = [str(FOLDER / "alerts.yaml")]
    file.write_text(json.dumps({"rule_files": rules, "evaluation_interval": "1m", "tests": tests}))
    return file


def rule_test(rule, case, fires):
    alert = {
        "exp_labels": case["labels"] | rule["labels"],
        "exp_annotations": rule["annotations"] | {"summary": case["summary"]},
    }
    series = case["fires" if fires else "quiet"]
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"alertname": rule["alert"], "eval_time": case["at"], "exp_alerts": [alert] if fires else []}
        ],
    }


def promtool(*arguments):
    result = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_promtool_accepts_the_rules_and_the_scrape_configuration():
    promtool("check", "rules", FOLDER / "alerts.yaml")
    promtool("check", "config", FOLDER / "prometheus.yaml")


def test_each_alert_fires_when_it_should_and_is_quiet_when_it_should(rule_tests):
    assert CASES.keys() == {rule["alert"] for rule in ALERTS}
    promtool("test", "rules", rule_tests)
