"""The dashboard, alerts and runbooks in `deploy/` speak of metrics that there are, and promtool agrees."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from service.metrics_catalogue import FAMILIES

PROJECT = Path(__file__).parent.parent
PROMETHEUS = PROJECT / "deploy" / "prometheus"
ALERTS = PROMETHEUS / "alerts.yaml"
CASES = PROMETHEUS / "alerts.test.yaml"
RUNBOOKS = (PROMETHEUS / "runbooks.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((PROJECT / "deploy" / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
README = (PROJECT / "README.md").read_text(encoding="utf-8")

RULES = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
QUERIES += [one["definition"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
BY_SAMPLE = {name: family for family in FAMILIES for name in family.samples}

SELECTOR = re.compile(r"(close_enrich_\w+)(?:\{(.*?)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|=)\s*"([^"]*)"')


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("CI") == "true":
            raise FileNotFoundError("promtool must be there in CI: Debian's package `prometheus` has it")
        pytest.skip("promtool is not installed: Debian's package `prometheus` has it")
    return found


def selectors(query):
    for name, matchers in SELECTOR.findall(query):
        yield name, MATCHER.findall(matchers)


def said_by(query):
    """What is wrong with the metrics, labels and words of a query."""
    for name, matchers in selectors(query):
        family = BY_SAMPLE.get(name)
        if family is None:
            yield f"no such metric: {name}"
            continue
        labels = {label.name: label for label in family.labels}
        for label, sign, words in matchers:
            if label not in labels:
                yield f"{name} has no label {label}"
            elif sign in ("=", "!=") or "$" not in words:
                known = labels[label].words
                for word in words.split("|"):
                    if known is not None and word not in known:
                        yield f"{name}: {label} never says {word}"


@pytest.mark.parametrize("query", QUERIES)
def test_the_dashboard_asks_for_metrics_that_there_are(query):
    assert list(selectors(query))
    assert list(said_by(query)) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_ask_for_metrics_that_there_are(rule):
    assert list(selectors(rule["expr"]))
    assert list(said_by(rule["expr"])) == []


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("close_enrich_workerz", "no such metric: close_enrich_workerz"),
        ('close_enrich_events_total{reslt="accepted"}', "close_enrich_events_total has no label reslt"),
        (
            'close_enrich_events_total{result=~"accepted|lost"}',
            "close_enrich_events_total: result never says lost",
        ),
    ],
)
def test_these_checks_find_what_is_wrong(query, wrong):
    assert list(said_by(query)) == [wrong]


def test_queries_never_add_up_what_several_processes_say():
    for query in [*QUERIES, *(rule["expr"] for rule in RULES)]:
        if "label_values" in query or query.startswith("absent("):
            continue
        for match in re.finditer(r"close_enrich_", query):
            before = re.sub(r"(rate|increase|delta)\($", "", query[: match.start()])
            assert re.search(r"(max|min)( by \([a-z_, ]+\))? ?\($", before), query


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do(rule):
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["runbook"] == f"runbooks.md#{rule['alert'].lower()}"
    section = re.search(rf"^## {rule['alert']}\n\n(.+?)(?=^## |\Z)", RUNBOOKS, re.MULTILINE | re.DOTALL)
    assert section
    assert len(section[1]) > 80


def test_no_runbook_is_about_an_alert_that_is_not_there():
    assert re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not():
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == names
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == names


def test_panels_have_names_descriptions_and_a_place_of_their_own():
    taken = set()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert not cells & taken, panel["title"]
        taken |= cells
        assert place["x"] + place["w"] <= 24
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_the_readme_lists_every_family():
    table = README.split("## Metrics")[1].split("\n## ")[0]
    listed = re.findall(r"`(close_enrich_\w+)`", table)
    assert [name for name in listed if listed.count(name) > 1] == []
    assert set(listed) == {family.name for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_readme_names_the_labels_of_each_family(family):
    (row,) = (line for line in README.splitlines() if line.startswith("|") and f"`{family.name}`" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert re.findall(r"`(\w+)`", cells[1]) == [label.name for label in family.labels]


def test_promtool_takes_the_rules():
    subprocess.run([promtool(), "check", "rules", str(ALERTS)], check=True)


def test_promtool_runs_the_cases():
    done = subprocess.run(
        [promtool(), "test", "rules", str(CASES)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_every_query_of_the_dashboard(tmp_path):
    rules = [
        {"record": f"query:{at}", "expr": query.replace("$__rate_interval", "5m").replace("$rule", ".*")}
        for at, query in enumerate(QUERIES)
        if not query.startswith("label_values")
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run([promtool(), "check", "rules", str(path)], check=True)
