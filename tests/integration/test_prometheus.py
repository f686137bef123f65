"""A real Prometheus scrapes running processes, and its alerts arrive at a real Alertmanager."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

import mainspring as ms
from kit.depot import ENDPOINT, Depot
from kit.depth import deep
from kit.fleet import BODY, INFER, Fleet
from kit.prometheus import alertmanager, prometheus
from kit.waiting import wait_until
from mainspring.core.settings import Address
from mainspring.core.time import SECOND
from mainspring.monitoring.service.burning import BurnRule
from mainspring.monitoring.service.dashboards import dashboard
from mainspring.monitoring.service.prometheus_rules import rules, yaml
from mainspring.monitoring.service.prometheus_scrape import scrape_config

QUICK = (BurnRule(14.4, 4 * SECOND, 2 * SECOND, True),)  # windows of seconds instead of an hour and five minutes


@deep
@pytest.mark.timeout(120)
def test_an_endpoint_that_fails_alerts_within_seconds(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, workers=1, forked=True)
    fleet.publish("1", deadline_us=1)  # no request can make it
    promised = ms.Monitor("late-arrival", objectives=[ms.objectives.availability(0.99)])
    address = Address("127.0.0.1", fleet.port)
    files = {
        "mainspring.scrape.yml": scrape_config(address, address, "mainspring.key"),
        "mainspring.rules.yml": yaml(rules([promised], QUICK)),
        "mainspring.key": fleet.key,
    }
    with fleet.up(), alertmanager() as manager, prometheus(files, manager) as server:
        wait_until(lambda: "mainspring-gateway" in server.healthy(), "a scrape")

        def alerted() -> list[dict[str, str]]:
            for _ in range(5):
                assert fleet.ask("POST", INFER, BODY).status == 503
            return [labels for labels in manager.alerts() if labels["alertname"] == "MainspringErrorBudgetBurn"]

        [labels] = wait_until(alerted, "the alert at Alertmanager", every_s=0.1)
        shares = server.query('endpoint_objective:mainspring_bad_events:ratio_4s{objective="availability"}')
    assert labels == {
        "alertname": "MainspringErrorBudgetBurn",
        "endpoint": "late-arrival",
        "objective": "availability",
        "severity": "page",
        "window": "4s",
    }
    assert [value for _, value in shares] == [1.0]


WATCHED = f"""
ms.Monitor(
    "{ENDPOINT}",
    objectives=[
        ms.objectives.availability(0.99),
        ms.objectives.latency(0.9, within="10s"),
        ms.objectives.freshness("HubLoad", within="1h"),
    ],
)
"""


@deep
@pytest.mark.timeout(600)
def test_a_whole_system_is_scraped_and_a_process_that_is_away_alerts(depot: Depot, tmp_path: Path) -> None:
    """With the exported files, as a person would use them."""
    service = depot.root / "parcels" / "service.py"
    service.write_text(service.read_text() + WATCHED)
    depot.json("apply")
    with depot.up() as up:
        up.until_serving()
        key = depot.json("keys", "create", "x", "--scope", "scrape", "--scope", "predict", "--expires", "1d")["key"]
        for name in ("prometheus-rules", "grafana"):
            depot.json("export", name, "--output", tmp_path / name)
        depot.json("export", "prometheus-scrape", "--credentials", "mainspring.key", "--output", tmp_path / "scrape")
        row = {"parcel": "p1", "hub": "north", "weight": 3.0, "posted_at": datetime.now(UTC).isoformat()}
        files = {
            "mainspring.scrape.yml": (tmp_path / "scrape").read_text(),
            # A minute of patience is much for a test.
            "mainspring.rules.yml": re.sub(r'for: "\dm"', 'for: "1s"', (tmp_path / "prometheus-rules").read_text()),
            "mainspring.key": key,
        }
        with alertmanager() as manager, prometheus(files, manager) as server:
            wait_until(lambda: server.healthy() == {"mainspring-gateway", "mainspring-control"}, "both targets")
            inputs = [
                {"name": name, "datatype": "FP32" if name == "weight" else "BYTES", "shape": [1], "data": [value]}
                for name, value in row.items()
            ]
            path = f"/v2/models/{ENDPOINT}/infer"
            wait_until(lambda: up.ask("POST", path, {"inputs": inputs}, key=key).status == 200, "an answer")
            # The worker looks once a minute; then objectives have events.
            budget = f'mainspring_error_budget_left_ratio{{endpoint="{ENDPOINT}",objective="availability"}}'
            [(_, left)] = wait_until(lambda: server.query(budget), "the budget", within_s=200)
            assert left == 1.0
            wait_until(lambda: server.query("mainspring_window_predictions"), "a window", within_s=200)
            named = {
                name
                for panel in dashboard()["panels"]
                for target in panel.get("targets", ())
                for name in re.findall(r"mainspring_[a-z_]+|process_[a-z_]+", target["expr"])
            }
            absent = {name for name in named if not server.query(name)}
            # Nothing failed, was rejected, labelled, measured or rolled out, and the machine has no price.
            assert absent <= {
                "mainspring_cost_today",
                "mainspring_endpoint_cost_today",
                "mainspring_rejections_total",
                "mainspring_arm_weight",
                "mainspring_arm_failures_total",
                "mainspring_capacity_requests_per_second",
                "mainspring_window_quality",
                "mainspring_label_coverage_ratio",
                "mainspring_label_delay_seconds",
                "mainspring_window_drifted_columns",
            }
            told = {labels["alertname"] for labels in manager.alerts()}
            assert "MainspringErrorBudgetBurn" not in told
