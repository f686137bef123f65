"""A producer that is killed: run by test_event_log_kill.py, not a test itself.

`event_log_victim.py FILE NAME FIRST` writes numbered messages from FIRST on, and prints the number up to which they are
acknowledged.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

from mainspring.data.adapters.log_sqlite import SqliteLog
from mainspring.data.streams.model import NewMessage


def main() -> None:
    file, name, first = Path(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3])
    log, number, chance = SqliteLog(file), first, random.Random()
    while True:
        count = chance.choice((1, 1, 3, 50, 700))
        numbers = range(number, number + count)
        log.produce("clicks", [NewMessage(b"%s:%d" % (name, each), name, partition=each % 3) for each in numbers])
        number += count
        print(number, flush=True)


if __name__ == "__main__":
    main()
