"""Routing of a user's own `mlflow` calls and autologging into an open Mainspring run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from mainspring.core.environment import overridden
from mainspring.registry.adapters.mlflow_store import ENTITIES, mlflow

_URI, _EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"
_AUTOLOGGING = "mlflow.utils.autologging_utils"  # imported only when autologging is in use


@contextmanager
def active(url: str, store: Any, run_id: str) -> Iterator[None]:
    """Make the run MLflow's active run of this thread, and `url` its tracking store, here and in child processes.

    The run is pushed directly onto MLflow's stack: `start_run` would set its status to running again, and `end_run` to
    finished; Mainspring alone sets the status. Runs that the block left open are ended and popped.
    """
    fluent, run = mlflow("mlflow.tracking.fluent"), store.get_run(run_id)
    stack = fluent._active_run_stack.get()
    depth, ours = len(stack), fluent.ActiveRun(run)
    with _directed(url, str(run.info.experiment_id)):
        stack.append(ours)
        try:
            yield
        finally:
            _end_what_was_left(fluent, stack, depth, ours)
            del stack[depth:]


@contextmanager
def aside(url: str, store: Any, run_id: str, tags: Mapping[str, str]) -> Iterator[None]:
    """Suspend the active run and autologging inside the block; tag a run that the block itself creates with `tags`."""
    fluent, entities = mlflow("mlflow.tracking.fluent"), mlflow(ENTITIES)
    stack = fluent._active_run_stack.get()
    before, stack[:] = list(stack), []
    last = fluent._last_active_run_id.get()
    with _directed(url, str(store.get_run(run_id).info.experiment_id)), ExitStack() as quiet:
        if _AUTOLOGGING in sys.modules:
            quiet.enter_context(sys.modules[_AUTOLOGGING].disable_autologging())
        try:
            yield
        finally:
            _end_what_was_left(fluent, stack, 0, None)
            made = fluent._last_active_run_id.get()
            if made is not None and made not in (last, run_id):
                with suppress(Exception):  # the tags are optional; the run exists without them
                    store.log_batch(made, [], [], [entities.RunTag(name, value) for name, value in tags.items()])
            fluent._last_active_run_id.set(last)
            stack[:] = before


def _end_what_was_left(fluent: Any, stack: list[Any], depth: int, ours: Any) -> None:
    while len(stack) > depth and stack[-1] is not ours:
        with suppress(Exception):
            fluent.end_run("FINISHED" if sys.exc_info()[0] is None else "FAILED")


@contextmanager
def _directed(url: str, experiment_id: str) -> Iterator[None]:
    """Point MLflow's client, here and in child processes, at the store `url` and this experiment."""
    service = mlflow("mlflow.tracking")
    before_uri = service._tracking_service.utils._tracking_uri
    service.set_tracking_uri(url)
    try:
        with overridden({_URI: url, _EXPERIMENT: experiment_id}):
            yield
    finally:
        service.set_tracking_uri(before_uri)
