"""The time that tests took, against what a suite may take: printed at the end of each run that has a budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

FILES, LONGEST_S = 12, 10.0


def account(reports: Iterable[Any], budget_s: float) -> Iterator[str]:
    """Yield lines about the sum over all tests, the slowest files, and the tests that took longer than one may.

    Args:
        reports: Of pytest, of each phase of each test.
        budget_s: Seconds in all processes together, on a quiet machine of two cores.
    """
    tests: Counter[str] = Counter()
    for report in reports:
        tests[report.nodeid] += report.duration
    files: Counter[str] = Counter()
    for name, took in tests.items():
        files[name.partition("::")[0]] += took
    yield f"{files.total():.0f} s in all processes together, of {budget_s:.0f} s"
    for name, took in files.most_common(FILES):
        yield f"{took:7.1f} s {name}"
    for name, took in tests.most_common():
        if took > LONGEST_S:
            yield f"{took:7.1f} s, and one test may take {LONGEST_S:.0f}: {name}"
