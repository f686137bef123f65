import numpy as np
import pytest

from kit.made_days import COLUMNS, FIRST, Change, Rows, reference, rows_of, spans, without
from mainspring.core.time import DAY, HOUR
from mainspring.monitoring.channels.contract import FALSE_PAGES_PER_WEEK, Contract
from mainspring.monitoring.channels.windows import Span, Windows, lay_out
from mainspring.monitoring.signals import Signal
from mainspring.stats.sketches import COUNTS, Ruler

LIVE = (FIRST + 60) * DAY


@pytest.fixture(scope="module")
def ruler() -> Ruler:
    return Ruler(reference(), COLUMNS)


@pytest.fixture(scope="module")
def contract(ruler: Ruler) -> Contract:
    return Contract.of(lay_out(spans(ruler, 60, training=60), ruler.columns), reference())


def hours(ruler: Ruler, changes: list[Change], count: int = 200) -> Windows:
    """Return an hour for each change."""
    found = [
        Span(LIVE + at * HOUR, LIVE + (at + 1) * HOUR, *ruler.measure(change(rows_of(at, count))))
        for at, change in enumerate(changes)
    ]
    return lay_out(found, ruler.columns, width=HOUR)


def same(rows: Rows) -> Rows:
    return rows


def judged(contract: Contract, looks: Windows) -> list[Signal]:
    return contract.judge(looks, "shop")


def test_ordinary_hours_keep_the_contract(ruler: Ruler, contract: Contract) -> None:
    assert judged(contract, hours(ruler, [same] * 48)) == []


@pytest.mark.parametrize(
    ("change", "statistic", "column"),
    [
        (lambda rows: without(rows, ["Road.traffic"]), "nulls", "Road.traffic"),
        (lambda rows: {name: values for name, values in rows.items() if name != "Road.kind"}, "nulls", "Road.kind"),
        (lambda rows: {**rows, "Road.traffic": np.full(200, "much", object)}, "type errors", "Road.traffic"),
        (lambda rows: {**rows, "Road.kind": np.full(200, "ship", object)}, "unseen", "Road.kind"),
        (lambda rows: {**rows, "Road.traffic": rows["Road.traffic"] * 100}, "out of range", "Road.traffic"),
    ],
    ids=["null", "vanished", "type", "category", "unit"],
)
def test_what_training_never_had_pages_within_hours(
    ruler: Ruler, contract: Contract, change: Change, statistic: str, column: str
) -> None:
    signals = judged(contract, hours(ruler, [same] * 5 + [change] * 5))
    assert {(each.statistic, each.column) for each in signals} == {(statistic, column)}
    assert signals[0].page
    assert signals[0].severity >= 1.0
    assert signals[0].start >= LIVE + 5 * HOUR


def test_one_value_in_all_rows_is_frozen(ruler: Ruler, contract: Contract) -> None:
    frozen = hours(ruler, [same, *[lambda rows: {**rows, "Shop.sales": np.full(200, 0.1)}] * 24])
    [page] = judged(contract, frozen)
    assert (page.statistic, page.column, page.start) == ("frozen", "Shop.sales", LIVE + 24 * HOUR)


def test_a_column_with_one_value_in_each_hour_is_not_frozen(ruler: Ruler, contract: Contract) -> None:
    """Such as the hour of the day, however many rows an hour has; also on the first day of an endpoint."""

    def at(hour: int) -> Change:
        return lambda rows: {**rows, "Shop.sales": np.full(200, -2.0 + hour / 6.0)}

    assert judged(contract, hours(ruler, [at(hour % 24) for hour in range(50)])) == []


def test_a_few_percent_page_within_a_day(ruler: Ruler, contract: Contract) -> None:
    signals = judged(contract, hours(ruler, [lambda rows: without(rows, ["Road.traffic"], 0.04)] * 24))
    assert signals[0].detail.startswith("Road.traffic is missing in 4% of 200 rows; training had 0% on its worst day.")


def test_the_signals_end_with_the_fault(ruler: Ruler, contract: Contract) -> None:
    broken = hours(ruler, [lambda rows: without(rows, ["Road.traffic"])] * 6 + [same] * 6)
    assert max(each.start for each in judged(contract, broken)) == LIVE + 5 * HOUR


def test_without_training_windows_the_shares_of_the_reference_hold(ruler: Ruler) -> None:
    plain = Contract.of(lay_out([], ruler.columns), reference())
    assert judged(plain, hours(ruler, [same] * 10)) == []
    assert judged(plain, hours(ruler, [lambda rows: without(rows, ["Road.traffic"])] * 10))


def test_nulls_that_an_old_reference_had_too_keep_the_contract(ruler: Ruler) -> None:
    def sparse(share: float) -> Change:
        return lambda rows: without(rows, ["Road.traffic"], share)

    known = reference(20, sparse(0.04))
    plain = Contract.of(lay_out([], ruler.columns), known)
    assert judged(plain, hours(ruler, [sparse(0.08)] * 48)) == []
    assert judged(plain, hours(ruler, [sparse(0.9)] * 48))


def test_a_range_that_moves_with_the_season_is_no_contract(ruler: Ruler) -> None:
    """Training had its largest values in a few warm days; the summer after it leaves the range for days."""
    warm = {day: lambda rows: {**rows, "Road.traffic": rows["Road.traffic"] + 3.0} for day in (8, 50)}
    days = spans(ruler, 60, warm, training=60)
    warmer = [lambda rows: {**rows, "Road.traffic": rows["Road.traffic"] + 50.0}] * 24
    seasonal = Contract.of(lay_out(days, ruler.columns), reference())
    assert judged(seasonal, hours(ruler, warmer)) == []
    steady = Contract.of(lay_out(spans(ruler, 60, training=60), ruler.columns), reference())
    assert {each.statistic for each in judged(steady, hours(ruler, warmer))} == {"out of range"}


def test_looking_often_raises_no_false_pages() -> None:
    """Nulls come in bursts of whole hours, as often as they are tolerated: the worst case of the null hypothesis."""
    columns = tuple(f"c{number}" for number in range(200))
    looks, rows = 24 * 60, 500
    rng = np.random.default_rng(11)
    counts = np.zeros((looks, len(columns), len(COUNTS)))
    counts[:, :, 0] = rows
    counts[:, :, COUNTS.index("nulls")] = rows * (rng.random((looks, len(columns))) < 0.005)
    bins = np.zeros((looks, len(columns), 80))
    bins[:, :, :4] = 100
    shape = (looks, len(columns))
    windows = Windows(
        columns,
        (),
        HOUR,
        np.arange(looks) * HOUR,
        counts,
        bins,
        np.zeros((*shape, 4)),
        np.zeros((looks, 0, 0)),
        np.zeros(looks, bool),
        np.ones(looks, bool),
        np.full(looks, rows),
        np.ones(looks),
        np.ones(looks, bool),
    )
    tolerant = Contract(columns, np.full((4, 200), 0.005), np.zeros((4, 200)), np.zeros(200, bool))
    pages = {(each.column, each.start // DAY) for each in tolerant.judge(windows, "shop")}
    assert len(pages) <= 1 + 3 * FALSE_PAGES_PER_WEEK * looks / (7 * 24)
