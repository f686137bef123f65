"""Letting a user's own `mlflow` calls, and its autologging, land in a run that we opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from mainspring.registry.adapters.mlflow_store import ENTITIES, mlflow

_URI, _EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"
_AUTOLOGGING = "mlflow.utils.autologging_utils"  # imported only by those who log by themselves


@contextmanager
def active(url: str, store: Any, run_id: str) -> Iterator[None]:
    """While it is entered, the run is MLflow's active run of this thread, and `url` its store, here and in children.

    The run goes straight onto MLflow's stack: its `start_run` would mark the run as running again, and its `end_run` as
    finished, both of which are ours to say. What the block left open on the stack is closed and taken off.
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
    """While it is entered, no run is active and autologging is off; a run that the block makes itself gets `tags`."""
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
                with suppress(Exception):  # it is a note on a run that is there without it
                    store.log_batch(made, [], [], [entities.RunTag(name, value) for name, value in tags.items()])
            fluent._last_active_run_id.set(last)
            stack[:] = before


def _end_what_was_left(fluent: Any, stack: list[Any], depth: int, ours: Any) -> None:
    while len(stack) > depth and stack[-1] is not ours:
        with suppress(Exception):
            fluent.end_run("FINISHED" if sys.exc_info()[0] is None else "FAILED")


@contextmanager
def _directed(url: str, experiment_id: str) -> Iterator[None]:
    """Let MLflow's client, here and in child processes, write to the store `url` and this experiment."""
    service = mlflow("mlflow.tracking")
    before_uri = service._tracking_service.utils._tracking_uri
    before = {name: os.environ.get(name) for name in (_URI, _EXPERIMENT)}
    service.set_tracking_uri(url)
    os.environ.update({_URI: url, _EXPERIMENT: experiment_id})
    try:
        yield
    finally:
        service.set_tracking_uri(before_uri)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
