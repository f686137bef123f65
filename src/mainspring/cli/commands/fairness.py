"""`mainspring fairness`: rates, calibration and errors of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.fairness import Fairness, VersionFairness
    from mainspring.stats.fairness.reporting import FairnessReport, Rate


@make("fairness")
@click.argument("what", metavar="ENDPOINT|MODEL")
@click.option("--by", multiple=True, help="A column whose values are groups; again for combinations.")
@click.option("--since", help="Use predictions from this instant on (ISO 8601); by default of 30 days.")
@click.option("--until", help="Use predictions before this instant (ISO 8601); by default now.")
@click.option("--least-rows", type=click.IntRange(min=1), default=200, show_default=True,
              help="Rows below which a measure is insufficient data.")  # fmt: skip
@click.option("--step", default="7d", show_default=True, help="Stretches of time in which gaps are followed.")
def command(
    call: Call, *, what: str, by: tuple[str, ...], since: str | None, until: str | None, least_rows: int, step: str
) -> None:
    """Compare groups: selection, errors and calibration of labelled predictions of ENDPOINT, by version.

    MODEL:VERSION or MODEL@ALIAS compares the version's held-out rows instead. Groups are the values of the columns that
    the endpoint's monitor declares (`fairness=`), or of --by: alone and in their combinations.
    """
    from msgspec import to_builtins

    from mainspring.core.time import parse_duration, parse_instant
    from mainspring.operations.fairness import held_out_fairness, live_fairness
    from mainspring.operations.models import curating

    project = call.project
    if what in project.definitions.endpoints:
        project.predictions.compact()
        bounds = [None if text is None else parse_instant(text) for text in (since, until)]
        found = live_fairness(
            project, what, by=by, since=bounds[0], until=bounds[1], least_rows=least_rows, step_us=parse_duration(step)
        )
    else:
        found = held_out_fairness(project, curating.find(project, what), by=by, least_rows=least_rows)
    document = dated(to_builtins(found), "since", "until")
    for version in document["versions"]:
        version["over_time"] = [dated(window, "start", "end") for window in version["over_time"]]
    call.result(document, lambda console: _show(console, found))


def _show(console: Console, found: Fairness) -> None:
    from rich.markup import escape

    if not found.versions:
        console.print(f"{escape(found.of)} has no {found.rows} in this period.")
        return
    for version in found.versions:
        output = f", {escape(version.output)}" if version.output else ""
        cut = "" if version.threshold is None else f", selected from a score of {version.threshold:g}"
        console.print(f"[bold]{escape(found.of)}, version {version.version}{output}[/]: "
                      f"{version.rows:,} {found.rows}{cut}")  # fmt: skip
        for report in version.reports:
            _show_groups(console, report)
            _show_gaps(console, report)
        _show_time(console, version)
    if found.hidden:
        console.print(f"The values of {', '.join(found.hidden)} identify a person and are not shown.", style="dim")


def _show_groups(console: Console, report: FairnessReport) -> None:

    measures = list(report.groups[0].measures) if report.groups else []
    rows = [
        (*group.group.values(), f"{group.rows:,}", *(_rate(rate) for rate in group.measures.values()))
        for group in report.groups
    ]
    show_records(console, (*report.by, "rows", *measures), rows, right=("rows",))


def _show_gaps(console: Console, report: FairnessReport) -> None:
    from rich.markup import escape

    for gap in report.gaps:
        if not gap.certain:
            continue
        names = (escape(" and ".join(group.values())) for group in (gap.highest, gap.lowest))
        ratio = "" if gap.ratio is None else f", ratio {_rate(gap.ratio)}"
        console.print(f"  {gap.measure}: {' above '.join(names)} by {_rate(gap.difference)}{ratio}")


def _show_time(console: Console, version: VersionFairness) -> None:

    from mainspring.core.time import format_instant

    widest = max((len(window.by) for window in version.over_time), default=0)
    windows = [window for window in version.over_time if len(window.by) == widest and window.gaps]
    if len(windows) < 2:
        return
    measures = list(dict.fromkeys(gap.measure for window in windows for gap in window.gaps))
    rows = []
    for window in windows:
        gaps = {gap.measure: _rate(gap.difference) for gap in window.gaps}
        rows.append(
            (format_instant(window.start)[:10], f"{window.rows:,}", *(gaps.get(name, "–") for name in measures))
        )
    console.print("Gaps over time", style="italic")
    show_records(console, ("from", "rows", *measures), rows, right=("rows",))


def _rate(rate: Rate) -> str:
    if rate.value is None:
        return f"insufficient data ({rate.rows:,})"
    if rate.low is None or rate.high is None:
        return f"{rate.value:.3f}"
    return f"{rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f})"
