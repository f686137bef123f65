"""`mainspring export`: files for Prometheus and Grafana, rendered from the definitions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group

if TYPE_CHECKING:
    from rich.console import Console


@click.group("export", cls=Group)
def command() -> None:
    """Write rules for Prometheus and dashboards for Grafana."""


@make("prometheus-rules", reads_only=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("mainspring.rules.yml"), show_default=True)
def prometheus_rules(call: Call, *, output: Path) -> None:
    """Write recording and alert rules: burn rates of the declared objectives, and the health of processes."""
    from mainspring.monitoring.service.prometheus_rules import rules, yaml

    document = rules(call.project.definitions.monitors.values(), tenant=call.project.settings.tenant)
    _write(call, output, yaml(document), rules=sum(len(group["rules"]) for group in document["groups"]))


@make("prometheus-scrape", reads_only=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("mainspring.scrape.yml"), show_default=True)
@click.option("--credentials", default="/etc/prometheus/mainspring.key", show_default=True, help="File with the key.")
def prometheus_scrape(call: Call, *, output: Path, credentials: str) -> None:
    """Write the scrape configuration of both planes, for `scrape_config_files`."""
    from mainspring.operations.service.scraping import scrape_config
    from mainspring.project.running import where_up

    settings = where_up(call.project.settings)
    text = scrape_config(settings.gateway, settings.control, credentials, tenant=settings.tenant)
    _write(call, output, text, targets=2)


@make("grafana", reads_only=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("mainspring.dashboard.json"), show_default=True)
def grafana(call: Call, *, output: Path) -> None:
    """Write a dashboard of all endpoints: objectives, service, quality, versions, processes."""
    import json

    from mainspring.monitoring.service.dashboards import dashboard

    document = dashboard(tenant=call.project.settings.tenant)
    panels = sum(panel["type"] != "row" for panel in document["panels"])
    _write(call, output, json.dumps(document, indent=2) + "\n", panels=panels)


def _write(call: Call, path: Path, text: str, **counted: int) -> None:
    from mainspring.core.files import write_atomic

    write_atomic(path, text.encode())
    (name, count), *_ = counted.items()

    def show(console: Console) -> None:
        console.print(f"Wrote {path}: {count} {name}.", markup=False, soft_wrap=True)

    call.result({"path": str(path), **counted}, show)


for each in (prometheus_rules, prometheus_scrape, grafana):
    command.add_command(each)
