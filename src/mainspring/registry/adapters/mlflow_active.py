"""Letting a user's own `mlflow` calls, and its autologging, land in a run that we opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mainspring.registry.adapters.mlflow_store import mlflow

_URI, _EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"


@contextmanager
def active(url: str, store: Any, run_id: str) -> Iterator[None]:
    """While it is entered, the run is MLflow's active run of this thread, and `url` its store, here and in children.

    The run goes straight onto MLflow's stack: its `start_run` would mark the run as running again, and its `end_run` as
    finished, both of which are ours to say. What the block left open on the stack is closed and taken off.
    """
    fluent = mlflow("mlflow.tracking.fluent")
    service = mlflow("mlflow.tracking")
    run = store.get_run(run_id)
    before_uri, before = (
        service._tracking_service.utils._tracking_uri,
        {n: os.environ.get(n) for n in (_URI, _EXPERIMENT)},
    )
    service.set_tracking_uri(url)
    os.environ[_URI] = url
    os.environ[_EXPERIMENT] = str(run.info.experiment_id)
    stack = fluent._active_run_stack.get()
    depth = len(stack)
    ours = fluent.ActiveRun(run)
    stack.append(ours)
    try:
        yield
    finally:
        while len(stack) > depth and stack[-1] is not ours:  # a nested run that was not ended
            with suppress(Exception):
                fluent.end_run("FAILED")
        del stack[depth:]
        service.set_tracking_uri(before_uri or "")
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
