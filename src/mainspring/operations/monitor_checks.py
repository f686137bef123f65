"""Checks of the monitor itself: it looks at every endpoint, no part of it fails, and its messages arrive."""

from __future__ import annotations

from collections.abc import Iterator

from mainspring.core.time import HOUR, WEEK, format_duration
from mainspring.monitoring.incidents.model import FAILED
from mainspring.monitoring.incidents.silences import quiet_endpoints
from mainspring.operations.findings import Finding, well
from mainspring.project import Project
from mainspring.project.running import alive, read_running

_CHECK = "monitor"
_WHILE_UP_US = HOUR  # between two passes of a worker that runs; usually half a minute


def check_monitor(project: Project) -> Iterator[Finding]:
    """Yield the findings. An endpoint without traffic needs no monitor, and one that was never watched is new."""
    parts, now = project.incidents.parts(), project.wall.now()
    findings = [_silent(name, for_us) for name, for_us in sorted(_quiet(project).items())]
    findings += [
        Finding(
            check=_CHECK,
            ok=False,
            detail=f"{each.part} of {each.endpoint or 'all endpoints'} failed in the last pass: {each.error}",
            fix="mend that; the next pass tries again",
        )
        for each in parts
        if each.error and (each.endpoint in {*_names(project), ""})
    ]
    lost = project.incidents.outgoing(states=[FAILED], since=now - WEEK)
    for target in sorted({each.target for each in lost}):
        mine = [each for each in lost if each.target == target]
        findings.append(
            Finding(
                check=_CHECK,
                ok=False,
                detail=f"{len(mine)} messages to {target!r} could not be delivered within a week: {mine[0].error}",
                fix="correct its settings, and see `mainspring incidents list`",
            )
        )
    yield from findings
    if not findings:
        watched = {each.endpoint for each in parts if each.endpoint}
        yield well(_CHECK, f"watched endpoints: {len(watched)}")


def _quiet(project: Project) -> dict[str, int]:
    """Return the endpoints that have traffic and that nobody watches, with the time since the last pass."""
    settings, parts, now = project.settings, project.incidents.parts(), project.wall.now()
    running = read_running(settings.state)
    is_up = running is not None and alive(running.pid)
    limit = _WHILE_UP_US if is_up else 2 * settings.monitor_window_us
    quiet = quiet_endpoints(parts, _names(project), now, limit)
    return {name: for_us for name, for_us in quiet.items() if is_up or _has_traffic(project, name, limit)}


def _names(project: Project) -> list[str]:
    monitors = project.definitions.monitors.values()
    collections = [each.collection for each in monitors if each.collection]
    return [*project.definitions.endpoints, *project.definitions.answers, *collections]


def _has_traffic(project: Project, endpoint: str, within_us: int) -> bool:
    newest = project.predictions.recent(endpoint, 1)
    return bool(newest) and newest[0].at > project.clock.now() - within_us


def _silent(endpoint: str, for_us: int) -> Finding:
    return Finding(
        check=_CHECK,
        ok=False,
        detail=f"the monitor has not looked at {endpoint} for {format_duration(for_us)}",
        fix=f"run `mainspring up`, whose worker watches it, or `mainspring monitor {endpoint}`",
    )
