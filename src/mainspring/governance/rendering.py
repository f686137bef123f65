"""Rendering of a card as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mainspring.core.time import format_duration
from mainspring.governance.model import Card, Estimate, Fact, Group, Importance, Resources
from mainspring.stats.fairness.reporting import FairnessReport, Rate

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")
ATTENTION = ("input", "moves the answer by", "error without it")
HEADERS = ("metric", "value", "95 % interval", "baseline")
FAIRNESS = (
    "Groups of the held-out rows, with 95 % intervals by blocks of a day. Of several hundred comparisons some are wide "
    "by chance: read the intervals, and ask again on other rows."
)
UNKNOWN = "unknown"  # name of the group of nulls


def markdown(card: Card) -> str:
    """Return the card as Markdown (CommonMark with tables). The authors' text is included unchanged."""
    lines = [f"# Model card: {_plain(title(card))}", "", f"> {_plain(verdict(card))}", ""]
    lines += _list(card.made)
    for section in card.words:
        lines += [f"## {_plain(section.title)}", "", section.text, ""]
    lines += ["## Data", "", *(_list(card.data) if card.data else ["Not known.", ""])]
    if card.inputs:
        lines += [*_table(("input", "type"), card.inputs)]
    lines += ["## Performance", ""]
    if card.performance is None:
        lines += ["Not known.", ""]
    else:
        found = card.performance
        lines += [f"{found.rows:,} held-out rows. {_plain(found.method)}", ""]
        lines += _table(HEADERS, map(estimate_row, found.metrics))
        for each in found.slices:
            lines += [f"### By {_plain(each.feature)}", ""]
            names = metric_names(each.groups)
            lines += _table((each.feature, "rows", *names), [group_row(group, names) for group in each.groups])
            if rest := left_out(each.left_out_groups, each.left_out_rows, found.smallest_group):
                lines += [rest, ""]
    if card.attention is not None:
        lines += ["## Importance", "", _plain(card.attention.method), ""]
        lines += _table(ATTENTION, map(importance_row, card.attention.importances))
    if card.fairness:
        lines += ["## Fairness", "", FAIRNESS, ""]
        for report in card.fairness:
            lines += [f"### Groups by {_plain(' and '.join(report.by))}", "", *_table(*fairness_table(report))]
            lines += [f"- {_plain(each)}" for each in wide_gaps(report)] + [""]
    lines += ["## Lineage", "", *_list(card.lineage), "## Resources", ""]
    facts = resource_facts(card.resources)
    lines += _list(facts) if facts else ["Not known.", ""]
    lines += ["## Gaps", ""]
    if card.gaps:
        rows = [(gap.section, gap.what, gap.fix, "yes" if gap.required else "no") for gap in card.gaps]
        lines += _table(("section", "missing", "fix", "required"), rows)
    else:
        lines += ["None.", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def title(card: Card) -> str:
    aliases = f" ({', '.join(card.aliases)})" if card.aliases else ""
    return f"{card.model}, version {card.version}{aliases}"


def verdict(card: Card) -> str:
    """Return a sentence on whether the card is complete."""
    required = sum(gap.required for gap in card.gaps)
    others = len(card.gaps) - required
    if required:
        return f"Not complete: {required} required {'thing is' if required == 1 else 'things are'} missing; see Gaps."
    return "Complete" + (f"; {others} more {'is' if others == 1 else 'are'} unknown, see Gaps." if others else ".")


def estimate_row(each: Estimate) -> tuple[str, str, str, str]:
    """Return a metric as the cells of `HEADERS`."""
    arrow = "higher is better" if each.higher_is_better else "lower is better"
    baseline = "" if each.baseline is None else f"{each.baseline:.4g}"
    return f"{each.metric} ({arrow})", f"{each.value:.4g}", _interval(each), baseline


def importance_row(each: Importance) -> tuple[str, str, str]:
    """Return a column's importance as the cells of `ATTENTION`."""
    moves, without = (
        "unknown" if found is None else f"{found.value:.3g} ({found.low:.3g} to {found.high:.3g})"
        for found in (each.contribution, each.permutation)
    )
    return each.column, moves, without


def metric_names(groups: Sequence[Group]) -> list[str]:
    """Return the metrics of the groups, in order of first occurrence."""
    return list(dict.fromkeys(each.metric for group in groups for each in group.metrics))


def group_row(group: Group, names: Sequence[str]) -> tuple[str, ...]:
    """Return a group's cells: its value, its rows, and every metric with its interval."""
    found = {each.metric: each for each in group.metrics}
    cells = [
        f"{found[name].value:.4g} ({_interval(found[name])})" if name in found else "not defined" for name in names
    ]
    return UNKNOWN if group.value is None else group.value, f"{group.rows:,}", *cells


def fairness_table(report: FairnessReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the head and the rows of the table of a report's groups."""
    measures = list(report.groups[0].measures) if report.groups else []
    rows = [
        (*group.group.values(), f"{group.rows:,}", *(_rate(group.measures[name]) for name in measures))
        for group in report.groups
    ]
    return (*report.by, "rows", *measures), rows


def wide_gaps(report: FairnessReport) -> list[str]:
    """Return a sentence on each gap whose interval excludes 0."""
    found = []
    for gap in report.gaps:
        if gap.certain:
            highest, lowest = (" and ".join(group.values()) for group in (gap.highest, gap.lowest))
            ratio = "" if gap.ratio is None else f", a ratio of {_rate(gap.ratio)}"
            found.append(f"{gap.measure}: {highest} is above {lowest} by {_rate(gap.difference)}{ratio}")
    return found


def _rate(rate: Rate) -> str:
    if rate.value is None:
        return "insufficient data"
    return f"{rate.value:.4g}" if rate.low is None else f"{rate.value:.4g} ({rate.low:.4g} to {rate.high:.4g})"


def left_out(groups: int, rows: int, smallest: int) -> str:
    """Return a sentence on the groups that are not shown; empty if there are none."""
    if not groups:
        return ""
    which = f"{groups:,} more {'group' if groups == 1 else 'groups'} of {rows:,} rows together"
    return f"{which}: fewer than {smallest} rows each, or not among the twelve largest."


def resource_facts(resources: Resources) -> list[Fact]:
    """Return a training's resources as facts."""
    found = []
    if resources.seconds is not None:
        found.append(
            Fact("Time", f"{format_duration(round(resources.seconds * 1e6))} from the start of the run to its end")
        )
    if resources.energy_wh is not None:
        found.append(Fact("Energy", f"about {resources.energy_wh:.2g} Wh. {resources.energy_method}"))
    if resources.cost is not None:
        found.append(Fact("Cost", f"{resources.cost:.2g} {resources.currency}: {resources.cost_method}"))
    return found


def _interval(each: Estimate) -> str:
    return "no interval" if each.low is None or each.high is None else f"{each.low:.4g} to {each.high:.4g}"


def _list(facts: Iterable[Fact]) -> list[str]:
    return [*(f"- **{_plain(fact.name)}**: {_plain(fact.value)}" for fact in facts), ""]


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(_plain, cells))} |"

    return [line(headers), f"|{'---|' * len(headers)}", *map(line, rows), ""]


def _plain(text: str) -> str:
    """Return text escaped for Markdown, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
