import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.console import formats
from mainspring.core.time import DAY, HOUR, MINUTE, SECOND, parse_instant

T = parse_instant("2013-08-31T23:05:07.250Z")


def plain(text) -> str:
    return str(text).replace(" ", " ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.74123, "0.7412"),
        (12.3456, "12.35"),
        (1042.9, "1,043"),
        (123456.0, "123,456"),
        (3.2e-8, "3.2e-08"),
        (-2.5, "-2.5"),
        (1e20, "1.0e+20"),
    ],
)
def test_number(value, text) -> None:
    assert formats.number(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12))
def test_a_number_is_never_far_from_what_it_says(value) -> None:
    said = float(str(formats.number(value)).replace(",", ""))
    assert math.isclose(said, value, rel_tol=0.051, abs_tol=1e-300)
    if abs(value) >= 1e-4:
        assert math.isclose(said, value, rel_tol=5.1e-4)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0%"), (1.0, "100.0%"), (0.9716, "97.2%"), (0.00001, "<0.1%"), (0.99999, ">99.9%"), (0.5, "50.0%")],
)
def test_share(value, text) -> None:
    assert formats.share(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 ms"), (0.84, "840 µs"), (1.2345, "1.23 ms"), (48.2, "48.2 ms"), (2100, "2.1 s")]
)
def test_milliseconds(value, text) -> None:
    assert plain(formats.milliseconds(value)) == text


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "0 ms"),
        (1500, "1.5 ms"),
        (40 * SECOND, "40 s"),
        (5 * HOUR + 12 * MINUTE + 9 * SECOND, "5 h 12 min"),
        (9 * DAY, "9 d"),
        (DAY + 5 * MINUTE, "1 d"),
        (-2 * HOUR, "−2 h"),
    ],
)
def test_duration(us, text) -> None:
    assert plain(formats.duration(us)) == text


def test_instants_are_utc_and_exact_in_the_title() -> None:
    shown = formats.instant(T)
    assert ">31 Aug 2013, 23:05 UTC<" in shown
    assert 'title="2013-08-31T23:05:07.250000Z"' in shown
    assert ">31 Aug 2013, 23:05:07.250 UTC<" in formats.exact(T)


@pytest.mark.parametrize(
    ("away", "text"), [(0, "just now"), (5 * MINUTE, "5 min ago"), (-3 * DAY, "in 3 d"), (999_999, "just now")]
)
def test_ago(away, text) -> None:
    assert plain(formats.ago(T - away, T)) == text


def test_spans() -> None:
    day = parse_instant("2013-07-01T00:00:00Z")
    assert formats.span(day, day + 7 * DAY) == "1 Jul – 8 Jul 2013 UTC"
    assert formats.span(day, day + HOUR) == "1 Jul 2013, 00:00 – 01:00 UTC"
    assert formats.span(day + 23 * HOUR, day + 25 * HOUR) == "1 Jul, 23:00 – 2 Jul 2013, 01:00 UTC"


@pytest.mark.parametrize(
    "shown",
    [
        formats.value(None),
        formats.number(None),
        formats.number(math.nan),
        formats.fixed(math.inf),
        formats.share(None),
        formats.duration(None),
        formats.instant(None),
        formats.whole(None),
        formats.value(""),
    ],
)
def test_nothing_is_a_dash_with_a_reason(shown) -> None:
    assert ">–<" in shown
    assert 'title="' in shown


@pytest.mark.parametrize(
    ("value", "text"), [(0.862, "+0.86"), (-1.2, "−1.20"), (0.001, "0.00"), (-0.001, "0.00"), (-1234.5, "−1,234.50")]
)
def test_signed(value, text) -> None:
    assert formats.signed(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "<1e-16"), (1e-313, "<1e-16"), (3e-12, "3.0e-12"), (0.63, "0.63")])
def test_tiny(value, text) -> None:
    assert formats.tiny(value) == text


def test_values_of_every_type() -> None:
    assert [formats.value(each) for each in (True, False, "UA")] == ["true", "false", "UA"]
    assert ">58,752<" in formats.value(58_752)
    assert "title='0.1234567891'>0.12346<" in formats.value(0.1234567891)
    assert formats.value(["<b>", None]).startswith("[&lt;b&gt;, ")
