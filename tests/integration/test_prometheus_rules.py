"""Rules and dashboards for Prometheus and Grafana are valid, agree with the worker, and name metrics that exist."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

import mainspring as ms
from kit.cloud_targets import IMAGE, VERTEX
from kit.console.costly import PRICES, spend
from kit.console.flights import NOW, Project, definitions, populated
from kit.depth import examples
from kit.prometheus import promtool
from kit.watching import watching
from mainspring.core.gpus import Gpu
from mainspring.core.settings import Address
from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.deploy.adapters.targets.compose import ComposeOptions, ComposeTarget
from mainspring.deploy.adapters.targets.options import read_options
from mainspring.deploy.adapters.targets.systemd import SystemdOptions, SystemdTarget
from mainspring.deploy.manifests.clouds.vertex import VertexOptions
from mainspring.deploy.targets.conformance import deployment
from mainspring.deploy.targets.model import Service
from mainspring.deploy.terraform.google import google_values
from mainspring.monitoring.service.burning import FEWEST_BAD, RULES, bad_share, counted, span
from mainspring.monitoring.service.dashboards import dashboard
from mainspring.monitoring.service.objectives import Objective
from mainspring.monitoring.service.prometheus_rules import rules, yaml
from mainspring.monitoring.service.prometheus_scrape import scrape_config
from mainspring.monitoring.service.readings import State
from mainspring.monitoring.service.samples import Sample
from mainspring.operations.cost.machine import MachineMeter
from mainspring.operations.service.exposition import ControlMetrics
from mainspring.project.objective_alarms import objective_alarms
from mainspring.project.running import Running, write_running
from mainspring.serving.conformance.baselines import measured
from mainspring.serving.plane.metrics import Metrics

OBJECTIVES = (
    ms.objectives.availability(0.99),
    ms.objectives.latency(0.99, within="50ms"),
    ms.objectives.latency(0.99, within="1s"),
    ms.objectives.freshness("OriginTraffic", within="5m"),
)
BUDGET = ms.Budget("shop", project=True, month="500 EUR")
WATCHED = ms.Monitor("late-arrival", objectives=OBJECTIVES)
GPUS = [Gpu(0, 0.4, 20_000_000_000, 80_000_000_000, 61.0, 123.5), Gpu(1, 0.0, None, None, None, None)]
MOMENT = 4 * DAY  # of evaluation, after the start of the series


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What both planes of a project with traffic expose."""
    metrics = Metrics(
        ready=lambda: True,
        served=lambda: {"late-arrival": ("2",)},
        waiting=lambda: {"late-arrival": 0},
        refused=dict,
        arms=lambda: {"late-arrival": {"2": 1.0}},
        revisions=lambda: {"late-arrival": 3},
        unlogged=lambda: {("late-arrival", "sampled"): 0},
    )
    endpoint = metrics.of("late-arrival")
    endpoint.version("2").seconds.observe(0.01)
    endpoint.rejections["queue_full"] += 1
    endpoint.arm("2").failures["Unavailable"] += 1
    metrics.connections = lambda: dict.fromkeys(
        (
            "connections",
            "held_connections",
            "receiving_bytes",
            "evicted_connections",
            "certificate_expires",
            "certificate_loaded",
            "certificate_refused",
        ),
        0,
    )
    project: Project = populated()
    state = tmp_path_factory.mktemp("state")
    write_running(state, Running(os.getpid(), "local", "", "", {"worker": os.getpid()}))
    project = project.having(
        definitions=replace(definitions(), monitors={"late-arrival": WATCHED}, budgets={"shop": BUDGET}),
        settings=replace(project.settings, state=state, prices=PRICES),
    )
    spend(project, project.key())
    MachineMeter(project).look()
    sample = Sample(
        subject="late-arrival", start=NOW - MINUTE, end=NOW, observed_us=MINUTE, counts={"requests 200": 5.0}
    )
    project.service.save("here", [sample], State(NOW))
    project.baselines.add(measured("late-arrival", NOW - 1))
    return [metrics.text().decode(), ControlMetrics(project, gpus=lambda: GPUS).text().decode()]


def test_a_gpu_exports_what_it_reports(texts: list[str]) -> None:
    found = dict(re.findall(r'^mainspring_gpu_(\w+\{gpu="\d"\}) (\S+)', texts[1], re.M))
    assert found == {
        'busy_ratio{gpu="0"}': "0.4",
        'memory_used_bytes{gpu="0"}': "2e+10",
        'memory_total_bytes{gpu="0"}': "8e+10",
        'temperature_celsius{gpu="0"}': "61.0",
        'power_watts{gpu="0"}': "123.5",
        'busy_ratio{gpu="1"}': "0.0",
    }
    assert "mainspring_gpu" not in ControlMetrics(Project()).text().decode()


def test_the_rules_are_valid(tmp_path: Path) -> None:
    document = rules([WATCHED, ms.Monitor("another")])
    path = tmp_path / "mainspring.rules.yml"
    path.write_text(yaml(document))
    count = sum(len(group["rules"]) for group in document["groups"])
    assert f"SUCCESS: {count} rules found" in promtool("check", "rules", path)
    assert [group["name"] for group in document["groups"]] == [
        "mainspring_objectives",
        "mainspring",
    ]
    assert [group["name"] for group in rules([])["groups"]] == ["mainspring"]


# Good and bad events a minute: until so many minutes before the moment, and since.
SCENARIOS = {
    "well": ((1000, 0), 0, (1000, 0)),
    "an outage that goes on": ((1000, 0), 40, (700, 300)),
    "an outage that is over": ((1000, 0), 20, (1000, 0)),
    "a brief outage": ((1000, 0), 3, (0, 1000)),
    "a slow burn": ((1000, 15), 0, (1000, 15)),
    "a burn of hours": ((1000, 0), 240, (900, 100)),
    "everything, for ever": ((0, 100), 0, (0, 100)),
}


@pytest.mark.parametrize("objective", OBJECTIVES[: examples(gate=1, deep=2)], ids=lambda each: each.kind)
def test_prometheus_alerts_exactly_as_the_worker_does(objective: Objective, tmp_path: Path) -> None:
    document = rules([ms.Monitor("late-arrival", objectives=[objective])])
    (tmp_path / "mainspring.rules.yml").write_text(yaml(document))
    tests = []
    for before, minutes, since in SCENARIOS.values():
        firing = expected(objective, before, minutes, since)
        alerts = [
            {
                "exp_labels": labels(objective, long, severity),
                "exp_annotations": annotations(document, long, share),
            }
            for long, severity, share in firing
        ]
        tests.append(
            {
                "interval": "1m",
                "input_series": series(objective.kind == "availability", before, minutes, since),
                "alert_rule_test": [
                    {"eval_time": "4d", "alertname": "MainspringErrorBudgetBurn", "exp_alerts": alerts}
                ],
            }
        )
    assert sum(len(each["alert_rule_test"][0]["exp_alerts"]) for each in tests) == 6
    suite = {"rule_files": ["mainspring.rules.yml"], "evaluation_interval": "1d", "tests": tests}
    (tmp_path / "suite.yml").write_text(json.dumps(suite))
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "suite.yml")


AT_GOOGLE = 'monitored_resource="aiplatform.googleapis.com/Endpoint",location="europe-west4",endpoint_id="shop-late"'
CODES = {"": {"200": "2xx", "503": "5xx", "404": "4xx"}, "_private": {"200": "200", "503": "503", "404": "404"}}


def of_google(given: dict[str, str], kind: str) -> list[dict[str, str]]:
    """Return series of this file as Cloud Monitoring names them."""
    name, values = given["series"], given["values"]
    metric = f"aiplatform_googleapis_com:prediction_online{kind}"
    if code := re.search(r'status="(\d+)"', name):
        of = f'{metric}_response_count{{{AT_GOOGLE},response_code="{CODES[kind][code[1]]}"}}'
        return [{"series": of, "values": values}]
    of = AT_GOOGLE + (',latency_type="total"' if not kind else "")
    if "_count" in name:
        return [{"series": f"{metric}_prediction_latencies_count{{{of}}}", "values": values}]
    found = ["50"] if 'le="0.05"' in name else ["100", "+Inf"]
    return [{"series": f'{metric}_prediction_latencies_bucket{{{of},le="{bound}"}}', "values": values}
            for bound in found]  # fmt: skip


@pytest.mark.parametrize(
    ("objective", "kind"),
    [(objective, kind) for kind in ("", "_private") for objective in OBJECTIVES[:2]][: examples(gate=1, deep=4)],
    ids=str,
)
def test_alarms_at_google_ring_exactly_when_the_worker_s_do(objective: Objective, kind: str, tmp_path: Path) -> None:
    monitor = ms.Monitor("late-arrival", objectives=[objective])
    services = (Service(endpoint="late-arrival", model="late-arrival"),)
    options = read_options(VertexOptions, {**VERTEX, "terraform": True, "notify": "ops@example.org"}, "east")
    made = deployment(project="shop", services=services, image=IMAGE, region="europe-west4", replicas=(2, 4))
    alarms = google_values(made, options, objective_alarms([monitor]))["alarms"]
    too_few = f"count({alarms.pop('shop-late-arrival-replicas')['query']}) or vector(0)".replace("late-arrival", "late")
    queries = {name: each["query"].replace("shop-late-arrival", "shop-late") for name, each in alarms.items()}
    tests = []
    few = ((0, 0), 3, (0, 1))  # and all of them bad
    for before, minutes, since in [few, *SCENARIOS.values()][: examples(gate=3, deep=8)]:
        firing = {(window, severity) for window, severity, _ in expected(objective, before, minutes, since)}
        rings = [(f"{rule.long_us // HOUR}h".replace("72h", "3d"), "page" if rule.page else "ticket") in firing
                 for rule in RULES]  # fmt: skip
        shown = [
            {"expr": f"count({query}) or vector(0)", "eval_time": f"{MOMENT // MINUTE + 6}m",
             "exp_samples": [{"labels": "{}", "value": int(rung)}]}
            for query, rung in zip(queries.values(), rings, strict=True)
        ]  # fmt: skip
        there = [each for one in series(objective.kind == "availability", before, minutes, since)
                 for each in of_google(one, kind)]  # fmt: skip
        tests.append({"interval": "1m", "input_series": there, "promql_expr_test": shown})
    replicas = {
        "series": f"aiplatform_googleapis_com:prediction_online_replicas{{{AT_GOOGLE}}}", "values": "2x1440 1x1500"
    }  # fmt: skip
    for there, minute, rings in (([replicas], 1446, 0), ([replicas], 2886, 1), ([], 1446, 1)):
        shown = [{"expr": too_few, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": rings}]}]
        tests.append({"interval": "1m", "input_series": there, "promql_expr_test": shown})
    rung = [each["exp_samples"][0]["value"] for one in tests for each in one["promql_expr_test"]]
    assert 0 < sum(rung) < len(rung)
    (tmp_path / "suite.yml").write_text(json.dumps({"evaluation_interval": "1d", "tests": tests}))
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "suite.yml")


def test_one_prometheus_tells_the_alerts_of_tenants_apart(tmp_path: Path) -> None:
    """Each has the same endpoint; every rule of both is loaded, and one of them is well."""
    names = {"acme": "well", "beta": "an outage that goes on"}
    alerts, input_series = [], []
    for tenant, scenario in names.items():
        document = rules([ms.Monitor("late-arrival", objectives=OBJECTIVES[:1])], tenant=tenant)
        (tmp_path / f"{tenant}.rules.yml").write_text(yaml(document))
        of = f'{{tenant="{tenant}", '
        own = series(True, *SCENARIOS[scenario])
        input_series += [{**each, "series": each["series"].replace("{", of)} for each in own]
        input_series += [
            {"series": f'mainspring_gateway_worker_up{of}slot="0"}}', "values": f"{int(tenant == 'acme')}x6000"},
            {"series": f'mainspring_unlogged_predictions_total{of}endpoint="late-arrival", cause="full"}}',
             "values": "0x6000" if tenant == "acme" else "0+1x6000"},
        ]  # fmt: skip
        alerts += [
            {"exp_labels": {**labels(OBJECTIVES[0], long, severity), "tenant": tenant},
             "exp_annotations": annotations(document, long, share)}
            for long, severity, share in expected(OBJECTIVES[0], *SCENARIOS[scenario])
        ]  # fmt: skip
    assert {each["exp_labels"]["tenant"] for each in alerts} == {"beta"}
    lost = {"severity": "ticket", "tenant": "beta", "endpoint": "late-arrival", "cause": "full"}
    down = {"severity": "page", "tenant": "beta", "slot": "0"}
    test = {
        "interval": "1m",
        "input_series": input_series,
        "alert_rule_test": [
            {"eval_time": "4d", "alertname": "MainspringErrorBudgetBurn", "exp_alerts": alerts},
            {"eval_time": "4d", "alertname": "MainspringGatewayDown", "exp_alerts": [
                {"exp_labels": down, "exp_annotations": {"summary": "A gateway process does not answer"}}]},
            {"eval_time": "4d", "alertname": "MainspringPredictionsLost", "exp_alerts": [
                {"exp_labels": lost, "exp_annotations": {
                    "summary": "Predictions of late-arrival are missing in the log (full)"}}]},
        ],
    }  # fmt: skip
    suite = {"rule_files": ["*.rules.yml"], "evaluation_interval": "1d", "tests": [test]}
    (tmp_path / "suite.yml").write_text(json.dumps(suite))
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "suite.yml")


def test_one_prometheus_scrapes_several_tenants(tmp_path: Path) -> None:
    address = Address("127.0.0.1", 8080)
    for tenant in ("", "acme", "beta"):
        (tmp_path / f"{tenant}.scrape.yml").write_text(scrape_config(address, address, "/dev/null", tenant=tenant))
    (tmp_path / "prometheus.yml").write_text('scrape_config_files: ["*.scrape.yml"]')
    assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("kind", ["systemd", "compose"])
def test_a_target_that_is_asked_has_a_configuration_that_prometheus_takes(kind: str, tmp_path: Path) -> None:
    there = watching(gateway=Address("127.0.0.1", 8080, secure=True))
    digest = "@sha256:" + "ef" * 32
    options = ComposeOptions(contents="project", prometheus=f"prometheus{digest}", grafana=f"grafana{digest}")
    target = {
        "systemd": lambda: SystemdTarget(SystemdOptions(monitoring=True), tmp_path, there),
        "compose": lambda: ComposeTarget(options, tmp_path, there),
    }[kind]()
    for piece in target.render(deployment()):
        target.make(piece)
    config = target.path / "monitoring/prometheus/prometheus.yml"
    (key := tmp_path / "key").write_text("a key")
    text = config.read_text()
    assert text.count("scheme: https") == 1
    config.write_text(re.sub("/run/secrets/scrape-key|/etc/prometheus/mainspring.key", str(key), text))
    assert "SUCCESS: 1 rule files found" in promtool("check", "config", config)
    rules_there = target.path / "monitoring/prometheus/mainspring.rules.yml"
    assert "MainspringErrorBudgetBurn" in rules_there.read_text()
    assert "SUCCESS" in promtool("check", "rules", rules_there)
    [shown] = (target.path / "monitoring/grafana/dashboards").iterdir()
    jsonschema_rs.validate(SCHEMA, json.loads(shown.read_text()))
    for folder, entry in (("dashboards", "providers"), ("datasources", "datasources")):
        [written] = (target.path / "monitoring/grafana/provisioning" / folder).iterdir()
        document = json.loads(written.read_text())
        assert (document["apiVersion"], len(document[entry])) == (1, 1)


def test_a_tenant_s_queries_read_no_metric_of_another() -> None:
    awkward = ms.Monitor("late-arrival", objectives=[ms.objectives.freshness("mainspring_view", within="5m")])
    found = [rule["expr"] for group in rules([WATCHED, awkward], tenant="acme")["groups"] for rule in group["rules"]]
    made = dashboard(tenant="acme")
    found += [target["expr"] for panel in made["panels"] for target in panel.get("targets", ())]
    found += [made["annotations"]["list"][0]["expr"], made["templating"]["list"][1]["query"]]
    for each in found:
        after = re.findall(r"mainspring_[\w:]+(?![\w:])(.{0,8})", re.sub('"[^"]*"', '""', each))
        assert set(after) == {"{tenant="}, each
    assert 'view="mainspring_view"' in "".join(found)
    jsonschema_rs.validate(SCHEMA, dashboard(tenant="a" * 31))


def series(availability: bool, before: tuple[int, int], minutes: int, since: tuple[int, int]) -> list[dict[str, str]]:
    total = MOMENT // MINUTE - minutes
    (good, bad), (later, worse) = before, since

    def values(first: int, second: int) -> str:
        start = f"0+{first}x{total}"
        return f"{start} {first * total + second}+{second}x{minutes - 1}" if minutes else start

    of = 'endpoint="late-arrival", instance="a", slot="0"'
    if availability:
        return [
            {"series": f'mainspring_requests_total{{{of}, status="200"}}', "values": values(good, later)},
            {"series": f'mainspring_requests_total{{{of}, status="503"}}', "values": values(bad, worse)},
            {"series": f'mainspring_requests_total{{{of}, status="404"}}', "values": "0+500x9000"},
        ]
    of += ', version="2"'
    whole = values(good + bad, later + worse)
    return [
        {"series": f'mainspring_inference_seconds_bucket{{{of}, le="0.05"}}', "values": values(good, later)},
        {"series": f'mainspring_inference_seconds_bucket{{{of}, le="+Inf"}}', "values": whole},
        {"series": f"mainspring_inference_seconds_count{{{of}}}", "values": whole},
    ]


def expected(
    objective: Objective, before: tuple[int, int], minutes: int, since: tuple[int, int]
) -> list[tuple[str, str, float]]:
    """Return the window, severity and share of bad events of every rule that the worker's arithmetic breaks."""
    samples = [
        Sample(
            subject="late-arrival",
            start=minute * MINUTE,
            end=(minute + 1) * MINUTE,
            observed_us=MINUTE,
            counts={"requests 200": good, "requests 503": bad, "seconds 0.05": good, "seconds inf": bad},
        )
        for minute in range(MOMENT // MINUTE)
        for good, bad in [since if minute >= MOMENT // MINUTE - minutes else before]
    ]
    events = [span(objective, sample) for sample in samples]
    found = []
    for rule in RULES:
        good, bad = counted(events, MOMENT - rule.long_us, MOMENT)
        shares = [bad_share(events, MOMENT - window, MOMENT) or 0.0 for window in (rule.long_us, rule.short_us)]
        if bad >= FEWEST_BAD and min(shares) > rule.share(objective):
            hours = rule.long_us // HOUR
            window = f"{hours // 24}d" if hours >= 24 else f"{hours}h"
            found.append((window, "page" if rule.page else "ticket", bad / (good + bad)))
    return found


def labels(objective: Objective, window: str, severity: str) -> dict[str, str]:
    return {"endpoint": "late-arrival", "objective": objective.name, "severity": severity, "window": window}


def annotations(document: dict[str, Any], window: str, share: float) -> dict[str, str]:
    [found] = [
        rule["annotations"]
        for group in document["groups"]
        for rule in group["rules"]
        if rule.get("labels", {}).get("window") == window and "alert" in rule
    ]
    shown = f"{float(f'{share * 100:.4g}'):g}%"
    return {name: text.replace("{{ $value | humanizePercentage }}", shown) for name, text in found.items()}


def test_names_and_units_follow_the_conventions(texts: list[str]) -> None:
    """As promtool checks them: a unit as suffix, counters with _total, a help text, no reserved names."""
    for text in texts:
        assert promtool("check", "metrics", stdin=text.encode()).strip() == ""


def named(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:mainspring|process)_[a-z0-9_]+", expression))


def test_every_metric_of_the_rules_and_the_dashboard_is_in_a_scrape(texts: list[str]) -> None:
    scraped = set(re.findall(r"^([a-z_0-9]+)[{ ]", "".join(texts), re.M))
    scraped |= {"mainspring_gateway_worker_up", "mainspring_catalog_stale_seconds"}  # of a process with its slot
    expressions = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    expressions += [annotation["expr"] for annotation in dashboard()["annotations"]["list"]]
    expressions += [variable["query"] for variable in dashboard()["templating"]["list"]]
    rendered = [rule["expr"] for group in rules([WATCHED])["groups"] for rule in group["rules"]]
    recorded = {"mainspring_bad_events"}
    for expression in (*expressions, *rendered):
        assert named(expression) - recorded - scraped == set(), expression
    assert len({name for each in expressions for name in named(each)}) > 20


def test_the_documentation_names_every_metric_and_no_other(texts: list[str]) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "howto" / "prometheus.md").read_text(encoding="utf-8")
    rows = [line for line in page[page.index("## Metrics of the gateway") :].splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`((?:mainspring|process)_\w+)", row.split(" | ")[0])}
    scraped = set(re.findall(r"^# HELP (\w+)", "".join(texts), re.M))
    # Where there is a slot, a copy of the catalog, or a collector of spans.
    scraped |= {"mainspring_gateway_worker_up", "mainspring_catalog_stale_seconds", "mainspring_catalog_went_back"}
    scraped |= {"mainspring_spans_total"}
    # Where models have a bound on their memory.
    scraped |= {f"mainspring_models_memory_{each}_bytes" for each in ("used", "limit")}
    scraped |= {"mainspring_model_executors"}
    # Where endpoints have devices.
    scraped |= {f"mainspring_device_memory_{each}_bytes" for each in ("used", "limit")} | {"mainspring_endpoint_nodes"}
    scraped |= {f"mainspring_model_{each}" for each in ("in_memory", "memory_bytes", "loads_total", "load_seconds")}
    # Where language models are served.
    counted = ("requests", "tokens", "cost", "hedges", "queued_seconds", "guard_acts")
    scraped |= {f"mainspring_llm_{name}_total" for name in counted} | {
        "mainspring_llm_first_token_seconds",
        "mainspring_llm_tokens_per_second",
    }
    scraped |= {f"mainspring_{each}_{name}" for each in ("answers", "searches") for name in ("total", "seconds")}
    scraped |= {f"mainspring_llm_{name}" for name in ("upstream_up", "waiting_calls", "tokens_in_flight")}
    assert documented == scraped


def test_the_queries_of_the_dashboard_are_promql(tmp_path: Path) -> None:
    expressions = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    filled = [each.replace("$__rate_interval", "5m").replace("$endpoint", ".*") for each in expressions]
    recorded = [{"record": f"panel_{number}", "expr": each} for number, each in enumerate(filled)]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}))
    assert f"SUCCESS: {len(filled)} rules found" in promtool("check", "rules", tmp_path / "panels.yml")


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    made = dashboard()
    jsonschema_rs.validate(SCHEMA, made)
    assert json.loads(json.dumps(made)) == made
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    cells: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert max(x for x, _ in own) < 24
        assert not own & cells
        cells |= own


_PLACE = {"type": "integer", "minimum": 0}
_SOURCE = {
    "type": "object",
    "required": ["type", "uid"],
    "properties": {"type": {"const": "prometheus"}, "uid": {"const": "${datasource}"}},
}
_TARGET = {
    "type": "object",
    "required": ["refId", "expr", "datasource"],
    "properties": {"refId": {"pattern": "^[A-Z]$"}, "expr": {"type": "string", "minLength": 1}, "datasource": _SOURCE},
}
# The part of Grafana's dashboard schema that is used (https://grafana.com/docs/grafana/latest/as-code/).
SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time", "annotations"],
    "properties": {
        "uid": {"type": "string", "pattern": "^[a-zA-Z0-9-_]{1,40}$"},
        "title": {"type": "string", "minLength": 1},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "tags": {"type": "array", "items": {"type": "string"}},
        "time": {"type": "object", "required": ["from", "to"]},
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos"],
                "properties": {
                    "id": {"type": "integer", "minimum": 1},
                    "type": {"enum": ["row", "timeseries", "stat"]},
                    "gridPos": {
                        "type": "object",
                        "required": ["h", "w", "x", "y"],
                        "properties": {"h": _PLACE, "w": {"type": "integer", "maximum": 24}, "x": _PLACE, "y": _PLACE},
                    },
                    "datasource": _SOURCE,
                    "targets": {"type": "array", "minItems": 1, "items": _TARGET},
                },
                "if": {"properties": {"type": {"const": "row"}}},
                "else": {"required": ["datasource", "targets", "fieldConfig"]},
            },
        },
        "templating": {
            "type": "object",
            "required": ["list"],
            "properties": {
                "list": {
                    "items": {
                        "type": "object",
                        "required": ["name", "type", "query"],
                        "properties": {"type": {"enum": ["datasource", "query"]}},
                    }
                }
            },
        },
    },
}
