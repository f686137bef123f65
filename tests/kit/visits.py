"""Visits to shops, many of them late, out of order or twice: what the tests of killed materialisations land."""

from __future__ import annotations

import random

import pyarrow as pa

import mainspring as ms
from mainspring.core.time import DAY, HOUR, MINUTE, parse_instant

NOW = parse_instant("2024-03-05T10:07:00Z")
SHOPS = [f"shop {number:02}" for number in range(40)]
KEYINGS = {"shop": ("shop",)}

shop = ms.Entity("shop", keys={"shop": ms.String})
VISITS = ms.Source(
    "visits",
    schema={"shop": ms.String, "spent": ms.Float64},
    event_time="came_at",
    recorded_time="known_at",
)


@ms.feature_view(entity=shop, source=VISITS)
class VIEW:
    visits_1h = ms.count(window="1h")
    spent_24h = ms.sum("spent", window="24h")
    most_30d = ms.max("spent", window="30d")
    newest = ms.last("spent", window="3h")
    last = ms.last("spent", ttl="2d")


def batch(seed: int, rows: int, now: int) -> pa.Table:
    """Visits of the days before `now`; some become known in the hour after it, some are of months ago."""
    chance = random.Random(seed)
    came, known = [], []
    for _ in range(rows):
        moment = now - chance.choice([chance.randrange(HOUR), chance.randrange(40 * HOUR), chance.randrange(60 * DAY)])
        came.append(moment)
        known.append(moment + chance.choice([0, 0, MINUTE, chance.randrange(2 * HOUR), chance.randrange(3 * DAY)]))
    instants = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "came_at": pa.array(came, instants),
            "known_at": pa.array(known, instants),
            "shop": pa.array([chance.choice(SHOPS) for _ in range(rows)]),
            "spent": pa.array([chance.randrange(-200, 200) / 4 for _ in range(rows)]),
        }
    )
