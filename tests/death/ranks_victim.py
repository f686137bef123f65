"""A launcher of two ranks, which is killed: run by test_ranks_kill.py, not a test itself.

`python ranks_victim.py FOLDER DEED...` trains in FOLDER the network of the conformance suite, with deeds as
`ATTEMPT:RANK:STEP:WORD`, and prints the events.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from mainspring.deploy.adapters.torchrun import LocalRunner
from mainspring.training.distributed import conformance
from mainspring.training.distributed.ports import Job
from mainspring.training.distribution import Distributed


def main() -> None:
    folder = Path(sys.argv[1])
    deeds = [[*map(int, each.split(":")[:3]), each.split(":")[3]] for each in sys.argv[2:]]
    request = json.dumps({"folder": str(folder), "deeds": deeds})
    declared = Distributed(processes=2, restarts=9, silence_s=20.0)
    for event in LocalRunner().run(Job("run", conformance.__name__, request, folder, declared), lambda: 0):
        print(event, flush=True)


if __name__ == "__main__":
    main()
