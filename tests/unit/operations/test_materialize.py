from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

import mainspring as ms
from kit.station import view
from mainspring.operations.materialize import materialise_views
from mainspring.project import Project


class Reports:
    """A materialiser of which the first view has a defect."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def run(self, asked: Any, **_: Any) -> Any:
        self.asked.append(asked)
        if len(self.asked) == 1:
            raise OverflowError("out of range")
        return "report"


def test_a_view_that_fails_in_an_unforeseen_way_does_not_keep_the_others_waiting() -> None:
    reports = Reports()
    views = [view(n=ms.count(window="1h")), view(m=ms.count(window="2h"))]
    paying = ms.Team("hubs", views=[each.name for each in views[:1]])
    project = SimpleNamespace(
        settings=SimpleNamespace(materialise_every_us=1, team=""), materialiser=reports,
        metering=SimpleNamespace(of=lambda _: nullcontext()), definitions=SimpleNamespace(teams={"hubs": paying}),
    )  # fmt: skip
    with pytest.raises(OverflowError):
        materialise_views(cast(Project, project), views)
    assert reports.asked == views
