"""Process of a launcher that has a training's ranks on a Ray cluster: Ray ends the process where its cluster is lost.

`python -m mainspring.deploy.adapters.ray_agent ENTRY FOLDER TELL`
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from mainspring.core.environment import set_variable
from mainspring.core.errors import MainspringError
from mainspring.training.distributed.conducting import Conductor
from mainspring.training.distributed.hearing import telling
from mainspring.training.distributed.ports import DECLARED
from mainspring.training.distribution import Distributed

ASKED = "ray.json"  # of the job's folder: the arguments of `_train`
_RECONNECT_S = 20  # to a cluster's control service, before Ray ends this process


def _train(
    entry: str, folder: Path, tell: Any, *, address: str, owner: str, cpus: int, gpus: int | None, wait_s: float,
    code: str, state: str,
) -> bool:  # fmt: skip
    from mainspring.core.ray_cluster import connect
    from mainspring.deploy.adapters.ray_machines import RayMachines

    distributed = Distributed(**json.loads((folder / DECLARED).read_text(encoding="utf-8")))
    if code:
        connect(address, Path(code), [os.path.relpath(state, code)] if Path(state).is_relative_to(code) else [])
    else:
        connect(address)
    noted: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: noted.append(number))  # Ray has set its own
    machines = RayMachines(entry, folder, owner, distributed, cpus=cpus, gpus=gpus, apart=bool(code))

    def say(**what: Any) -> None:
        if {"failed", "stopped"} & what.keys() or what.get("size") == 0:
            machines.bring()  # before the launcher hears the last word
        tell(**what)

    try:
        conductor = Conductor(folder.name, distributed, machines, say, lambda: noted[0] if noted else 0, wait_s=wait_s)
        if done := conductor.run():
            machines.bring()
            say(ended=True)  # before the cluster is asked for anything more
        return done
    finally:
        machines.close()


def main() -> int:
    """Run the job of a folder; return 0 if all ranks ended well."""
    entry, folder, tell = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_variable("RAY_gcs_rpc_server_reconnect_timeout_s", str(_RECONNECT_S), default=True)
    set_variable(
        "RAY_worker_niceness", "0", default=True
    )  # of a Ray that is started here: 15 starves ranks beside others
    say = telling(tell)
    try:
        return 0 if _train(entry, folder, say, **json.loads((folder / ASKED).read_text(encoding="utf-8"))) else 1
    except MainspringError as error:
        say(refused={"kind": type(error).__name__, "what": error.what, "fix": error.fix})
        return 1


if __name__ == "__main__":
    sys.exit(main())
