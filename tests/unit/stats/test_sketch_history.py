import numpy as np
import pytest

from mainspring.core.time import DAY
from mainspring.stats.reference import profile
from mainspring.stats.sketch_history import MOST_DAYS, Day, pack, unpack
from mainspring.stats.sketches import Ruler, beside

COLUMNS = ("Shop.sales", "Shop.kind")


def days(number: int, rows: int = 300) -> list[Day]:
    rng = np.random.default_rng(2)
    made = [
        {"Shop.sales": rng.standard_t(2, rows), "Shop.kind": rng.choice(["a", "b", None], rows).astype(object)}
        for _ in range(number)
    ]
    whole = {name: np.concatenate([each[name] for each in made]) for name in COLUMNS}
    ruler = Ruler(profile(whole), COLUMNS)
    return [Day(day * DAY, (day + 1) * DAY, *ruler.measure(each)) for day, each in enumerate(made)]


def test_days_come_back() -> None:
    given = days(9)
    found = unpack(pack(given))
    assert [(day.start, day.end) for day in found] == [(day.start, day.end) for day in given]
    for before, after in zip(given, found, strict=True):
        assert (after.sketch.columns, after.pairs.columns, after.pairs.rows) == (COLUMNS, COLUMNS, 300)
        np.testing.assert_array_equal(after.sketch.counts, before.sketch.counts)
        np.testing.assert_array_equal(after.sketch.bins, before.sketch.bins)
        np.testing.assert_allclose(after.sketch.sums, before.sketch.sums, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(after.pairs.products, before.pairs.products, atol=300 / 2**13)


def test_the_same_days_are_the_same_bytes_in_any_order() -> None:
    given = days(4)
    assert pack(given) == pack(given[::-1])


def test_the_newest_days_are_kept() -> None:
    one = days(1)[0]
    many = [Day(day * DAY, (day + 1) * DAY, one.sketch, one.pairs) for day in range(MOST_DAYS + 5)]
    found = unpack(pack(many))
    assert len(found) == MOST_DAYS
    assert found[-1].start == (MOST_DAYS + 4) * DAY


def test_a_day_takes_few_bytes() -> None:
    assert len(pack(days(100))) < 100 * 2 * 300


def test_no_days_are_no_bytes() -> None:
    assert pack([]) == b""
    assert unpack(b"") == []


def test_days_of_other_columns_are_refused() -> None:
    first, second = days(2)
    other = Day(second.start, second.end, second.sketch.select(COLUMNS[:1]), second.pairs)
    with pytest.raises(ValueError, match="different columns"):
        pack([first, other])


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"history" + content])
def test_damaged_bytes_are_said_to_be(damage) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="not a history"):
        unpack(damage(pack(days(3))))


def test_sketches_beside_each_other_have_both_columns() -> None:
    sketch = days(1)[0].sketch
    assert beside(sketch.select(COLUMNS[:1]), sketch.select(COLUMNS[1:])) == sketch
