"""Regions by price and distance, among those where data may live.

A signal in fibre takes 4.9 µs a km, and cables are longer than great circles: a round trip is at least the first number
and mostly at most twice that. Places of regions are the cities that the providers name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import asin, cos, radians, sin, sqrt

PLACES: Mapping[str, tuple[float, float]] = {  # latitude and longitude, degrees
    "aws/ap-northeast-1": (35.7, 139.7), "aws/ap-southeast-1": (1.35, 103.8), "aws/eu-central-1": (50.1, 8.7),
    "aws/eu-west-1": (53.3, -6.3), "aws/us-east-1": (39.0, -77.5), "aws/us-west-2": (45.8, -119.7),
    "azure/eastus": (37.4, -79.8), "azure/northeurope": (53.3, -6.3), "azure/uksouth": (51.5, -0.1),
    "azure/westeurope": (52.4, 4.9), "google/asia-northeast1": (35.7, 139.7), "google/asia-southeast1": (1.35, 103.8),
    "google/europe-west1": (50.4, 3.8), "google/europe-west3": (50.1, 8.7), "google/europe-west4": (53.4, 6.8),
    "google/us-central1": (41.3, -95.9), "google/us-east1": (33.2, -80.0), "google/us-west1": (45.6, -121.2),
}  # fmt: skip
_EARTH_KM, _US_A_KM = 6371.0, 4.9
_DETOUR = 2.0


@dataclass(frozen=True, slots=True)
class Region:
    """A region: the price of an hour there, and the round trip from callers, ms, at least and mostly at most."""

    name: str
    hour: float
    least_ms: float | None
    most_ms: float | None
    measured: bool = False


def round_trip_ms(one: str, other: str) -> tuple[float, float] | None:
    """Return the least round trip between two regions and a usual upper bound, ms; `None` if a place is not known."""
    if one not in PLACES or other not in PLACES:
        return None
    (up, left), (down, right) = PLACES[one], PLACES[other]
    north, east = sin(radians(down - up) / 2), sin(radians(right - left) / 2)
    half = north**2 + cos(radians(up)) * cos(radians(down)) * east**2
    least = 2 * 2 * _EARTH_KM * asin(sqrt(min(1.0, half))) * _US_A_KM / 1000
    return least, _DETOUR * least


def allowed(region: str, where: Sequence[str]) -> bool:
    """Whether data may live in `PROVIDER/REGION`, by patterns such as `aws/eu-*`. Without patterns nowhere is."""
    return any(fnmatchcase(region, pattern) for pattern in where)


def ranked(
    hours: Mapping[str, float], where: Sequence[str], *, callers: str, most_ms: float, known_ms: Mapping[str, float]
) -> list[Region]:
    """Return the regions where data may live and from which answers come soon enough, the cheapest first.

    Args:
        hours: Region -> price of an hour there.
        where: Patterns of regions in which data may live.
        callers: Region that is nearest to the callers.
        most_ms: Round trip that is left of the deadline; compared with a measurement, else with the usual upper bound.
        known_ms: Region -> measured round trip.
    """
    found = []
    for name, hour in hours.items():
        if not allowed(name, where):
            continue
        bounds = (known_ms[name], known_ms[name]) if name in known_ms else round_trip_ms(callers, name)
        if bounds is not None and bounds[1] <= most_ms:
            found.append(Region(name, hour, *bounds, measured=name in known_ms))
    return sorted(found, key=lambda each: (each.hour, each.most_ms or 0.0, each.name))
