"""Class of storage that costs least for a table: its bytes, what is read of it, and how long it stays.

Classes that are cheaper a GiB charge for reading, for requests, and for a least time. The terms are list prices of the
providers, in dollars, of December 2024: S3 Standard-IA and Glacier Flexible Retrieval, Blob Storage's cool and archive
tiers, Cloud Storage's Nearline and Archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OBJECT, INFREQUENT, ARCHIVE = "object", "infrequent", "archive"


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of a class beside its price of a month.

    Attributes:
        read_gib: Price of reading a GiB; `thousand`: of a thousand reading requests; `put`: of a thousand writing ones,
            moves into the class among them.
        least_days: That are paid if an object is deleted before.
        at_once: Whether it can be read without being restored first.
    """

    read_gib: float = 0.0
    thousand: float = 0.0004
    put: float = 0.005
    least_days: int = 0
    at_once: bool = True

    def times(self, worth: float) -> Terms:
        """Return the terms in another currency, by the worth of a dollar."""
        read, thousand, put = self.read_gib * worth, self.thousand * worth, self.put * worth
        return Terms(read, thousand, put, self.least_days, self.at_once)


TERMS: Mapping[str, Mapping[str, Terms]] = {
    "aws": {
        OBJECT: Terms(),
        INFREQUENT: Terms(0.01, 0.001, 0.01, 30),
        ARCHIVE: Terms(0.01, 0.0504, 0.03, 90, at_once=False),
    },
    "azure": {
        OBJECT: Terms(0.0, 0.0005, 0.0065),
        INFREQUENT: Terms(0.01, 0.001, 0.013, 30),
        ARCHIVE: Terms(0.02, 0.55, 0.0143, 180, at_once=False),
    },
    "google": {
        OBJECT: Terms(0.0, 0.0004, 0.005),
        INFREQUENT: Terms(0.01, 0.001, 0.01, 30),
        ARCHIVE: Terms(0.05, 0.05, 0.05, 365),
    },
}


@dataclass(frozen=True, slots=True)
class Kept:
    """A table that is kept.

    Attributes:
        gib, files: Its size.
        reads: How often all of it is read in a month.
        days: For which its files stay, on average, before they are deleted or replaced.
    """

    gib: float
    files: int
    reads: float
    days: float


def month_cost(kept: Kept, price: float, terms: Terms, *, moved: bool) -> float:
    """Return the cost of a month in a class.

    A table whose files are replaced every `days` pays for writing each of them, and for the least time of the class.

    Args:
        price: Of a GiB and month.
        moved: Whether files are moved there after they were written, which costs a writing request each.
    """
    lasting = max(kept.days, terms.least_days) / kept.days
    stored = kept.gib * price * lasting
    read = kept.reads * (kept.gib * terms.read_gib + kept.files / 1000 * terms.thousand)
    written = kept.files / 1000 * terms.put * (30 / kept.days) if moved else 0.0
    return stored + read + written


def cheapest(kept: Kept, prices: Mapping[str, float], terms: Mapping[str, Terms]) -> tuple[str, dict[str, float]]:
    """Return the class that costs least, and class -> cost of a month. Classes that are not read at once are only for
    what is never read.

    Args:
        prices: Class -> price of a GiB and month; has `object`.
    """
    costs = {
        name: month_cost(kept, price, terms[name], moved=name != OBJECT)
        for name, price in prices.items()
        if name in terms and (terms[name].at_once or not kept.reads)
    }
    return min(costs, key=lambda name: (costs[name], name != OBJECT)), costs
