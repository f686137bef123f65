"""Reports of outcomes, as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

from oip_conformance.check import Outcome, Result

_MARKS = {
    Result.OK: "pass",
    Result.FAIL: "FAIL",
    Result.NOT_SUPPORTED: "not supported",
    Result.NOT_TESTED: "not tested",
}


def table(groups: Sequence[tuple[str, Sequence[Outcome]]], *, width: int = 120) -> str:
    """Return a table: a line a check, and below a failure what the specification says and what came."""
    names = max(len(outcome.check.name) for _, outcomes in groups for outcome in outcomes)
    marks = max(map(len, _MARKS.values()))
    lines = []
    for title, outcomes in groups:
        lines += [title, "-" * len(title)]
        for outcome in outcomes:
            head = f"{outcome.check.name:{names}}  {_MARKS[outcome.result]:{marks}}  "
            told = outcome.check.section
            if outcome.detail and outcome.result is not Result.FAIL:
                told += f" · {outcome.detail}"
            lines.append((head + textwrap.shorten(told, max(20, width - len(head)), placeholder="...")).rstrip())
            if outcome.result is Result.FAIL:
                lines += [f"    the specification: {outcome.check.says}", f"    this server: {outcome.detail}"]
        lines.append("")
    return "\n".join([*lines, summary([each for _, outcomes in groups for each in outcomes])])


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return how many there are of each kind, in a line."""
    counts = Counter(outcome.result for outcome in outcomes)
    return ", ".join(f"{counts[result]} {result}" for result in Result) + f" of {len(outcomes)}"


def as_json(url: str, model: str, outcomes: Sequence[Outcome]) -> str:
    """Return everything as JSON."""
    found: list[dict[str, Any]] = [
        {
            "check": outcome.check.name,
            "result": outcome.result,
            "section": outcome.check.section,
            "says": outcome.check.says,
            "detail": outcome.detail,
        }
        for outcome in outcomes
    ]
    return json.dumps({"url": url, "model": model, "checks": found}, indent=2)
