"""A name that no run has is said, where it stands, with the one that was meant; and a known one costs no look."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mainspring.core.time import parse_instant
from mainspring.registry.adapters.memory_search import MemoryRunSearch
from mainspring.registry.run_filters import parse_filter, parse_order
from mainspring.registry.searching import Kind, Order, RunQuery, RunRow
from mainspring.registry.unknown_names import UnknownName, unknown_names

NOW = parse_instant("2026-03-01T12:00:00Z")
RUNS = (
    RunRow("r1", "", "late", "FINISHED", NOW, NOW, {"holdout.auc": 0.7}, {"depth": "3"}, {"mlflow.user": "ana"}),
    RunRow("r2", "", "late", "FAILED", NOW, NOW, {"holdout.brier": 0.1}, {"depth": "4"}, {"note": "draft"}),
)


class Counting(MemoryRunSearch):
    """Counts how often names are asked for."""

    def __init__(self, runs: Sequence[RunRow] = RUNS) -> None:
        super().__init__(lambda: runs)
        self.looks = 0

    def names(self, kind: Kind, text: str = "", *, limit: int = 100, of: Sequence[str] | None = None) -> list[str]:
        self.looks += 1
        return super().names(kind, text, limit=limit, of=of)

    def kinds(self, name: str) -> list[Kind]:
        self.looks += 1
        return super().kinds(name)


def slips(filter_: str = "", order: str = "", search: Counting | None = None) -> list[UnknownName]:
    search = search or Counting()
    found = parse_filter(filter_, NOW, search.kinds)
    ordered = parse_order(order, search.kinds) if order else Order()
    runs = search.search(RunQuery(found.conditions, found.words, ordered), None).runs
    search.looks = 0
    return unknown_names(search, found, ordered, runs, ordered_by=order)


@pytest.mark.parametrize(
    ("filter_", "name", "at", "fix"),
    [
        ("houldout.auc > 0.5", "houldout.auc", 0, "did you mean 'holdout.auc'? "),
        ("late metrics.houldout.auc > 0.5", "houldout.auc", 5, "did you mean 'holdout.auc'? "),
        ("statsu = failed", "statsu", 0, "did you mean 'status'? "),
        ("depth = 3 and notte = draft", "notte", 14, "did you mean 'note'? "),
        ("tags.mlflow.usr = 'ana'", "mlflow.usr", 0, "did you mean 'mlflow.user'? "),
        ("zzz = 1", "zzz", 0, "there are depth, duration, ended, holdout.auc, holdout.brier, id, "),
    ],
)
def test_a_filter_that_finds_nothing(filter_: str, name: str, at: int, fix: str) -> None:
    (slip,) = slips(filter_)
    assert slip.what == (
        f"No run has a metric, parameter or tag {name!r}. It is at character {at + 1} of the filter."
    )  # fmt: skip
    assert filter_[at:].removeprefix("metrics.").removeprefix("tags.").startswith(name)
    assert slip.at == at
    assert slip.fix is not None
    assert slip.fix.startswith(fix)
    assert "mlflow." not in slip.fix or "mlflow." in filter_


@pytest.mark.parametrize(
    ("order", "at"), [("houldout.auc desc", 0), ("  houldout.auc", 2), ("-houldout.auc", 1), (" -houldout.auc ", 2)]
)
def test_an_order_by_what_no_run_has(order: str, at: int) -> None:
    (slip,) = slips("", order)
    assert (slip.at, order[slip.at :].startswith("houldout.auc")) == (at, True)
    assert f"character {at + 1} of the order" in slip.what
    assert slip.fix is not None
    assert "'holdout.auc'" in slip.fix


def test_every_slip_is_said_in_the_order_of_the_text() -> None:
    assert [slip.at for slip in slips("statsu = failed and dept = 3", "-nott")] == [0, 20, 1]


def test_a_name_of_another_kind() -> None:
    (slip,) = slips("metrics.depth > 1")
    assert slip.what == (
        "No run has a metric 'depth'; there is a parameter of that name. It is at character 1 of the filter."
    )  # fmt: skip
    assert slip.fix == "write params.depth."


@pytest.mark.parametrize(
    ("filter_", "order"),
    [
        ("", ""),
        ("depth = 3", "holdout.auc desc"),
        ("status = failed", "-depth"),
        ("", "holdout.brier"),  # one of them has it
        ("strange is null", ""),
        ("metrics.strange is null and status = running", ""),
        ("status = running", "started"),
        ("status = running swift", ""),
    ],
)
def test_known_names_cost_nothing(filter_: str, order: str) -> None:
    search = Counting()
    assert slips(filter_, order, search) == []
    assert search.looks == 0


def test_known_names_that_find_nothing_are_right() -> None:
    search = Counting()
    assert slips("depth = 5", "-holdout.auc", search) == []
    assert search.looks == 2  # one a name


def test_a_known_name_that_none_of_the_page_has_is_right() -> None:
    assert slips("status = failed", "-holdout.auc") == []


def test_where_no_run_is_no_name_is_wrong() -> None:
    assert slips("houldout.auc > 0.5", "-statsu", Counting(())) == []
