"""A producer of payments, as a shop's till would be: `python -m fraud.producer`.

An hour of 60 payments, in no exact order. A thief uses one card five times in eight minutes, in two countries. The
producer sends one payment twice, and one message is broken.
"""

from datetime import timedelta

import numpy as np

import mainspring as ms
from fraud.data import CARDS, COUNTRIES, END, MERCHANTS

STOLEN = "c0013"


def payments() -> list[dict[str, object]]:
    """Return the payments of an hour as they arrive."""
    rng = np.random.default_rng(5)
    rows = [
        {"card": f"c{int(rng.integers(20, CARDS)):04d}", "minute": minute, "country": "DE", "amount": 20.0 + minute}
        for minute in range(60)
    ]
    rows += [{"card": STOLEN, "minute": 30 + 2 * n, "country": COUNTRIES[n % 2], "amount": 400.0 + n} for n in range(5)]
    rows.sort(key=lambda row: row["minute"] + float(rng.uniform(0, 3)))
    return [
        {
            "payment": f"live-{number:03d}",
            "card": row["card"],
            "merchant": f"m{int(rng.integers(MERCHANTS)):02d}",
            "amount": row["amount"],
            "country": row["country"],
            "paid_at": END + timedelta(minutes=row["minute"]),
        }
        for number, row in enumerate(rows)
    ]


def main() -> None:
    """Send the payments; the key is the card, so that all payments of a card are in one partition, in order."""
    project, rows = ms.open(), payments()
    project.produce("payments", [*rows, rows[7], {"payment": "live-999", "card": None}], key="card", partitions=2)
    project.produce("fraud-alerts", [], partitions=1)


if __name__ == "__main__":
    main()
