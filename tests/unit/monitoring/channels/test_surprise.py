import numpy as np
import pytest

from kit.made_days import COLUMNS, FIRST, Change, Rows, reference, rows_of, spans, without
from mainspring.core.time import DAY
from mainspring.monitoring.channels import sentences
from mainspring.monitoring.channels.surprise import Verdicts, judge
from mainspring.monitoring.channels.windows import Span, lay_out
from mainspring.monitoring.signals import JOINT, SURPRISE
from mainspring.stats.reference import profile
from mainspring.stats.sketches import Ruler

DAYS = 90


@pytest.fixture(scope="module")
def ruler() -> Ruler:
    return Ruler(reference(), COLUMNS)


@pytest.fixture(scope="module")
def usual(ruler: Ruler) -> Verdicts:
    return judged(ruler, spans(ruler, DAYS, training=60))


def judged(ruler: Ruler, days: list[Span], incidents: list[tuple[int, int]] | None = None) -> Verdicts:
    windows = lay_out(days, ruler.columns, incidents=incidents or [])
    return judge(windows, ruler.ranks(), alarms_per_week=1.0)


def found(ruler: Ruler, change: Change, *, days: int = 2) -> list[tuple[str, str, str]]:
    """Return channel, column and statistic of the first signal after a change of the last days."""
    verdicts = judged(ruler, spans(ruler, DAYS, {DAYS - 1 - day: change for day in range(days)}, training=60))
    for window in range(DAYS - days, DAYS):
        if signals := verdicts.signals(window, "shop"):
            return [(each.channel, each.column, each.statistic) for each in signals]
    return []


def test_ordinary_days_keep_to_the_budget(usual: Verdicts) -> None:
    judged_days = np.isfinite(usual.thresholds)
    alarms = (usual.scores > usual.thresholds)[judged_days].sum()
    assert judged_days.sum() > 40
    assert alarms / judged_days.sum() <= 2 / 7  # a budget of 1 in 7; the season alone would alarm in each week


def test_a_day_of_the_season_is_a_surprise_on_another_weekday(ruler: Ruler, usual: Verdicts) -> None:
    seasonal = next(day for day in range(DAYS - 8, DAYS - 1) if (FIRST + day) % 7 == 3)
    assert not any(each.statistic == "mean" for each in usual.signals(seasonal, "shop"))

    def moved(rows: Rows) -> Rows:
        return {**rows, "Shop.sales": rows["Shop.sales"] + 2.0}

    channel, column, _ = found(ruler, moved, days=1)[0]
    assert (channel, column) == (SURPRISE, "Shop.sales")


def test_a_trend_is_no_surprise_for_ever(ruler: Ruler) -> None:
    def rising(day: int) -> Change:
        return lambda rows: {**rows, "Shop.sales": rows["Shop.sales"] + 0.02 * day}

    verdicts = judged(ruler, spans(ruler, 150, {day: rising(day) for day in range(150)}))
    late = slice(90, 150)
    assert (verdicts.scores > verdicts.thresholds)[late].mean() <= 2 / 7


@pytest.mark.parametrize(
    ("change", "channel", "column"),
    [
        (lambda rows: without(rows, ["Road.traffic"], 0.05), SURPRISE, "Road.traffic"),
        (lambda rows: {**rows, "Road.traffic": rows["Road.traffic"] * 1.6}, SURPRISE, "Road.traffic"),
        (lambda rows: {**rows, "Road.traffic": np.full(400, rows["Road.traffic"][0])}, SURPRISE, "Road.traffic"),
        (lambda rows: {**rows, "Road.kind": np.where(rows["Road.kind"] == "bus", "tram", rows["Road.kind"])},
         SURPRISE, "Road.kind"),
        (lambda rows: {name: values[:150] for name, values in rows.items()}, SURPRISE, ""),
        (lambda rows: {**rows, "Road.traffic": np.random.default_rng(1).permutation(rows["Road.traffic"])},
         JOINT, "Road.traffic"),
    ],
    ids=["nulls", "spread", "stuck", "category", "rows lost", "shuffled"],
)  # fmt: skip
def test_a_fault_is_named_first(ruler: Ruler, change: Change, channel: str, column: str) -> None:
    assert found(ruler, change)[0][:2] == (channel, column)


def test_columns_that_were_not_updated_are_named(ruler: Ruler) -> None:
    stale = {DAYS - 1: lambda _: {**rows_of(FIRST + DAYS - 1), "Shop.visits": rows_of(FIRST + DAYS - 2)["Shop.visits"]}}
    verdicts = judged(ruler, spans(ruler, DAYS, stale, training=60))
    signals = verdicts.signals(DAYS - 1, "shop")
    assert ("Shop.visits", "repeated") in [(each.column, each.statistic) for each in signals]


def test_rows_that_a_classifier_tells_from_training_are_more_separate() -> None:
    """Thirty columns that move a little in one direction: each is within its errors, and all together are not."""
    names = [f"Shop.c{number}" for number in range(30)]
    rng = np.random.default_rng(8)
    made = [dict(zip(names, rng.normal(size=(30, 400)), strict=True)) for _ in range(DAYS)]
    made[-1] = {name: values + 0.07 for name, values in made[-1].items()}
    ruler = Ruler(profile({name: np.concatenate([day[name] for day in made[:60]]) for name in names}), names)
    days = [Span(day * DAY, (day + 1) * DAY, *ruler.measure(rows), day < 60) for day, rows in enumerate(made)]
    verdicts = judged(ruler, days)
    severities = verdicts.unusual.severities[:, verdicts.unusual.statistics.index("separation")]
    assert severities[-1] == np.nanmax(severities)
    assert severities[-1] == pytest.approx(np.nanmax(verdicts.unusual.severities[-1]))
    assert verdicts.scores[-1] > verdicts.thresholds[-1]


def test_the_sentence_of_a_separation_says_the_auc() -> None:
    found = sentences.of("separation", "", 0.93, 0.85, 1_000)
    assert found == "A linear classifier tells the 1,000 rows from training's with an AUC of 0.93; 0.85 was expected."


def test_an_output_is_named_only_where_no_feature_is(ruler: Ruler) -> None:
    verdicts = judged(ruler, spans(ruler, DAYS, {DAYS - 1: lambda rows: without(rows, COLUMNS[1:3])}, training=60))
    every = {each.column for each in verdicts.signals(DAYS - 1, "shop")}
    features = {each.column for each in verdicts.signals(DAYS - 1, "shop", outputs=frozenset(["Road.traffic"]))}
    assert every == {"Shop.visits", "Road.traffic"}
    assert features == {"Shop.visits"}


def test_a_sentence_names_the_values(ruler: Ruler) -> None:
    verdicts = judged(ruler, spans(ruler, DAYS, {DAYS - 1: lambda rows: without(rows, ["Road.traffic"], 0.25)}))
    signal = next(each for each in verdicts.signals(DAYS - 1, "shop") if each.statistic == "nulls")
    assert signal.detail == "Road.traffic is missing in 25% of 400 rows; 0% was expected."
    assert signal.value == pytest.approx(0.25)
    assert signal.severity > 1
    assert not signal.page
    assert (signal.start, signal.end) == ((FIRST + DAYS - 1) * DAY, (FIRST + DAYS) * DAY)


def test_a_confirmed_incident_leaves_the_history(ruler: Ruler) -> None:
    """A fault of two weeks: kept in the history, it is usual when it comes again; confirmed, it is not."""

    def broken(rows: Rows) -> Rows:
        return without(rows, ["Road.traffic"], 0.3)

    days = spans(ruler, DAYS, {**dict.fromkeys(range(66, 80), broken), DAYS - 2: broken}, training=60)
    incident = [((FIRST + 66) * DAY, (FIRST + 80) * DAY)]
    kept, left_out = judged(ruler, days), judged(ruler, days, incident)
    window = DAYS - 2
    severity = [
        max((each.severity for each in verdicts.signals(window, "shop") if each.statistic == "nulls"), default=0.0)
        for verdicts in (kept, left_out)
    ]
    assert severity[1] > max(2.0 * severity[0], 1.0)


def test_a_pass_that_goes_on_answers_as_one_from_the_start(ruler: Ruler, usual: Verdicts) -> None:
    days = spans(ruler, DAYS, training=60)
    before = judged(ruler, days[: DAYS - 10])
    after = judge(lay_out(days, ruler.columns), ruler.ranks(), alarms_per_week=1.0, known=before)
    np.testing.assert_array_equal(after.scores, usual.scores)
    np.testing.assert_array_equal(after.thresholds, usual.thresholds)


@pytest.mark.parametrize("number", [0, 1, 5, 20])
def test_a_short_history_raises_no_alarm(ruler: Ruler, number: int) -> None:
    verdicts = judged(ruler, spans(ruler, number))
    assert [signal for window in range(number) for signal in verdicts.signals(window, "shop")] == []


def test_windows_of_few_rows_or_none_are_no_alarm_of_values(ruler: Ruler) -> None:
    empty = {name: values[:0] for name, values in rows_of(FIRST).items()}
    one = {name: values[:1] for name, values in rows_of(FIRST).items()}
    verdicts = judged(ruler, spans(ruler, DAYS, {DAYS - 3: lambda _: empty, DAYS - 2: lambda _: one}, training=60))
    assert verdicts.signals(DAYS - 3, "shop") == []
    assert {each.statistic for each in verdicts.signals(DAYS - 2, "shop")} <= {"rows"}


def test_one_column_that_never_varies_raises_no_alarm() -> None:
    same = {"Shop.open": np.ones(300)}
    ruler = Ruler(profile(same))
    days = [Span(day * DAY, (day + 1) * DAY, *ruler.measure(same)) for day in range(80)]
    verdicts = judged(ruler, days)
    assert not (verdicts.scores > verdicts.thresholds).any()
