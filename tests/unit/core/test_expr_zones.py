"""Offsets of zones against `zoneinfo`, at every change that the zone's own file lists."""

import struct
from bisect import bisect_right
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

import pytest

from mainspring.core.errors import Invalid
from mainspring.core.expr.zones import offsets_of

NASTY = [
    "Africa/Casablanca",  # an hour back for Ramadan
    "Africa/Monrovia",  # an offset with seconds until 1972
    "America/Argentina/San_Luis",
    "America/Caracas",
    "America/New_York",
    "Antarctica/Troll",  # two hours of summer time
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Australia/Lord_Howe",  # half an hour of summer time
    "Europe/Dublin",  # negative summer time
    "Europe/London",
    "Pacific/Apia",  # skipped a day
    "Pacific/Kiritimati",
]
FIRST, LAST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1900, 2070))


def changes(zone: str) -> tuple[int, ...]:
    """The instants that the zone's TZif file lists (RFC 8536), in seconds."""
    folders = [Path(folder) for folder in TZPATH if (Path(folder) / zone).is_file()]
    content = (folders[0] / zone if folders else files("tzdata").joinpath("zoneinfo", *zone.split("/"))).read_bytes()

    def counts(at: int) -> tuple[int, ...]:
        return struct.unpack(">6l", content[at + 20 : at + 44])

    utc, standard, leaps, times, types, characters = counts(0)
    second = 44 + times * 5 + types * 6 + characters + leaps * 8 + standard + utc
    number = counts(second)[3]
    return struct.unpack(f">{number}q", content[second + 44 : second + 44 + 8 * number])


def offset(zone: str, second: int) -> int:
    table = offsets_of(zone)
    return table.offsets[bisect_right(table.instants, second * 1_000_000)]


@pytest.mark.parametrize("zone", NASTY)
def test_offsets_are_the_databases_at_every_change(zone: str) -> None:
    years = [int(datetime(year, month, 1, tzinfo=UTC).timestamp()) for year in range(1900, 2070) for month in (1, 7)]
    listed = [second + step for second in changes(zone) for step in (-1, 0, 1)]
    assert listed
    for second in [*years, *(second for second in listed if FIRST <= second < LAST)]:
        expected = datetime.fromtimestamp(second, ZoneInfo(zone)).utcoffset()
        assert expected is not None
        assert offset(zone, second) == expected.total_seconds() * 1_000_000, (zone, second)


def test_a_change_counts_from_its_microsecond() -> None:
    table = offsets_of("America/New_York")
    assert 1383458400_000000 in table.instants  # 2013-11-03T06:00:00Z
    assert list(table.instants) == sorted(set(table.instants))
    assert len(table.offsets) == len(table.instants) + 1


def test_utc_never_changes() -> None:
    assert offsets_of("UTC").offsets == (0,)


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "America", "../etc/passwd", "/etc/localtime", "localtime", "right/UTC"]
)
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(Invalid, match="is not a time zone"):
        offsets_of(zone)
