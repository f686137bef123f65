"""A process that spends a quota and writes down what it got: `python -m kit.spender FILE GOT SEED`."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import msgspec

from kit.serving import route
from mainspring.core.errors import QuotaExceeded, Unavailable
from mainspring.security.model import KeyScope, Principal
from mainspring.security.quota import Quota
from mainspring.serving.model import Arm
from mainspring.serving.plane.counts import Counts
from mainspring.serving.plane.metering import Quotas

LIMIT, MOST = 120_000, 5
QUOTA = Quota("spent-by-many", per="month", rows=LIMIT, by="endpoint")


def main() -> None:
    counts, got, seed = Counts(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
    of = Quotas(msgspec.structs.replace(route(Arm("1", "d")), quotas=(QUOTA,)), counts)
    caller = Principal("k1", "test", frozenset(KeyScope))
    draw = random.Random(seed)
    file = os.open(got, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    counts.open(wait_s=60)
    print("ready", flush=True)
    sys.stdin.readline()
    refused = 0
    while refused < 100:
        rows = draw.randint(1, MOST)
        try:
            of.charge(caller, rows)
        except QuotaExceeded:
            refused += 1
        except Unavailable:  # another process adds the name, and the machine is busy
            continue
        else:
            os.write(file, bytes([rows]))


if __name__ == "__main__":
    main()
