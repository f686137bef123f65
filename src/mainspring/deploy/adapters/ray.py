"""Steps as Ray tasks. The project's folder must have the same path on every node of the cluster."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import ray

from mainspring.core.ray_cluster import connect
from mainspring.core.settings import Settings
from mainspring.deploy.engines.asking import ENTRY, Watch, asked, value
from mainspring.jobs.model import StepFailed
from mainspring.jobs.pipelines.ports import StepCall
from mainspring.jobs.plain import Plain
from mainspring.jobs.runner import JobRun

_OPTIONS = {"cpu": "num_cpus", "memory": "memory", "gpu": "num_gpus"}
_LOOK_S = 0.2
_END_S = 60.0  # for Ray to report that a cancelled task has ended


def _answer(entry: str, request: str) -> str:
    """Answer a request in Ray's worker process. Ray sends this function by its name, and texts."""
    told: str = import_module(entry).answer(request)
    return told


class RayRunner:
    """Runs each step as a Ray task in a fresh worker process. Ray itself never repeats one.

    Args:
        settings: The project's; `settings.engines.ray` is the cluster's address. Without one, Ray is started on this
            machine, and ends with this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(self, call: StepCall, attempt: JobRun) -> Plain:
        """See `StepRunner.run`. Raises `Unavailable` if there is no cluster."""
        watch = Watch(attempt)
        connect(self._settings.engines.ray)
        task = ray.remote(max_calls=1, max_retries=0)(_answer)
        request = asked(self._settings, call, attempt.id, log=str(call.log))
        asks = {_OPTIONS[name]: amount for name, amount in call.resources.items()}
        reference = task.options(name=f"{call.pipeline} {call.step}", **asks).remote(ENTRY, request)
        try:
            while not ray.wait([reference], timeout=_LOOK_S)[0]:
                watch.look()
        except BaseException:
            _end(reference)
            raise
        try:
            return value(ray.get(reference), attempt.id)
        except ray.exceptions.RayError as error:
            told = str(error).strip().splitlines()
            raise StepFailed(
                f"Its Ray task ended by {type(error).__name__}: {told[0] if told else 'no reason is given'}",
                fix=f"read {call.log}, or Ray's own logs.",
            ) from None


def _end(reference: Any) -> None:
    """Kill the task's process, and wait until it is gone."""
    ray.cancel(reference, force=True, recursive=True)
    ray.wait([reference], timeout=_END_S)
