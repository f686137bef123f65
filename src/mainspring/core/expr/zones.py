"""Wall clocks: the UTC offsets of an IANA zone as a table, which both implementations of expressions use.

DuckDB brings a zone database of its own, which disagrees with Python's wherever one is newer than the other. The table
comes from `zoneinfo` alone and is compiled into the SQL. Local time is microseconds since 1970 as the wall clock counts
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from mainspring.core.errors import Invalid
from mainspring.core.time import DAY, HOUR

UNITS = {"start_of_hour": (HOUR, 0), "start_of_day": (DAY, 0), "start_of_week": (7 * DAY, 3 * DAY)}  # 1970: a Thursday
_SECOND_US = 1_000_000
_FIRST = int(datetime(1900, 1, 1, tzinfo=UTC).timestamp())
_LAST = int(datetime(2070, 1, 1, tzinfo=UTC).timestamp())
_STEP = 3 * 86_400  # in no zone are two changes that cancel each other closer (tests check all zones)
_OF_THE_MACHINE = ("localtime", "posix", "right", "Factory")  # "right" counts leap seconds, "localtime" is not a zone


@dataclass(frozen=True, slots=True)
class Offsets:
    """A zone's offsets: `offsets[i]` holds from `instants[i - 1]` until before `instants[i]`, all in microseconds.

    The changes between 1900 and 2070 are known; the first and last offset hold before and after.
    """

    instants: tuple[int, ...]
    offsets: tuple[int, ...]  # one more than instants


@lru_cache(maxsize=1024)
def offsets_of(zone: str) -> Offsets:
    """Return the offsets of an IANA zone.

    Raises:
        Invalid: There is no such zone.
    """
    if zone == "UTC":
        return Offsets((), (0,))
    if zone.startswith(_OF_THE_MACHINE):
        raise _unknown(zone)
    try:
        rules = ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError; a folder's name gives an OSError
        raise _unknown(zone) from None

    def offset(second: int) -> timedelta:
        return datetime.fromtimestamp(second, rules).utcoffset() or timedelta()

    instants: list[int] = []
    offsets = [offset(_FIRST)]
    for start in range(_FIRST, _LAST, _STEP):
        low, high = start, min(start + _STEP, _LAST)
        while (after := offset(high)) != offsets[-1]:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
            after = offset(high)
            instants.append(high * _SECOND_US)
            offsets.append(after)
            low, high = high, min(start + _STEP, _LAST)
    return Offsets(tuple(instants), tuple(round(each.total_seconds()) * _SECOND_US for each in offsets))


def _unknown(zone: str) -> Invalid:
    return Invalid(
        f"{zone!r} is not a time zone of the IANA database.",
        fix='name one such as "America/New_York"; if none is known here, `pip install tzdata`.',
    )
