"""The gateway in a container: `python -m mainspring.processes.contained --project ROOT`, as its first process.

It supervises the gateway's processes, writes logs to standard error, collects orphans that processes leave, and drains
on SIGTERM. The number of processes and the memory of models follow from the container's limits where the settings say
nothing else.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

from mainspring.core.cores import memory_limit
from mainspring.core.settings import Settings
from mainspring.processes.process import run
from mainspring.processes.supervisor import Supervisor
from mainspring.project import Project
from mainspring.project.settings import child_arguments

_PROCESS = 160 << 20  # bytes of a gateway process without models
_LEAST_SHARE = 4  # of the container's memory that models may have in any case: one such part

_log = logging.getLogger("mainspring")


def main() -> int:
    """Serve until SIGTERM. Return the exit code."""

    def body(project: Project) -> None:
        parts = ("gateway", "grpc") if project.settings.grpc is not None else ("gateway",)
        _ = project.pepper  # say here that it is missing, not in each process
        supervisor = Supervisor(project, models_memory(project.settings), parts, tell=_log.warning, logs_to_files=False)
        with supervisor.heeding(), supervisor.running():
            while not supervisor.asked_to_stop:
                supervisor.wait(1.0)
                supervisor.collect_orphans()
            _log.info("stopping")

    return run("processes.contained", body, child_arguments("processes.contained").parse_args())


def models_memory(settings: Settings) -> Mapping[str, str]:
    """Return the variable with the memory of models, where the container has a limit and the settings have none."""
    limit = memory_limit()
    if limit is None or settings.gateway_memory is not None:
        return {}
    rest = max(limit // _LEAST_SHARE, limit - _PROCESS * (settings.serving_processes + 1))
    return {"MAINSPRING_GATEWAY_MEMORY": str(rest)}


if __name__ == "__main__":
    sys.exit(main())
