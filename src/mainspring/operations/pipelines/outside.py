"""Pipelines in other engines: the export of one, and its steps as those engines call them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mainspring.core.errors import Invalid, NotFound
from mainspring.core.files import write_atomic
from mainspring.core.json_content import decoded
from mainspring.jobs.model import StepFailed
from mainspring.jobs.pipelines.alone import NO_ITEM, Outcome, failed, items_of, run_alone, untagged
from mainspring.jobs.pipelines.graph import Graph
from mainspring.jobs.plain import Plain
from mainspring.operations.pipelines.calling import call_step
from mainspring.project import Project


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Input of a step from an engine: the run's parameters, and the outcomes of the steps that it needs."""

    parameters: dict[str, Any] = {}
    outcomes: dict[str, Any] = {}


def read_scope(text: str | bytes) -> Asked:
    """Return a scope from JSON.

    Raises:
        Invalid: It is something else.
    """
    try:
        return decoded(text, Asked)
    except msgspec.MsgspecError as error:
        raise Invalid(
            f"The scope of a step is not readable: {error}.", fix='give {"parameters": {...}, "outcomes": {...}}.'
        ) from None


def read_outcomes(graph: Graph, step: str, asked: Asked, folder: Path) -> Asked:
    """Return a scope with the outcomes of the steps that a step needs, as `write_outcome` wrote them.

    Args:
        folder: Has a folder of each such step, of its name.

    Raises:
        NotFound: There is no such step, or an outcome is missing.
        Invalid: An outcome is not JSON.
    """
    found = dict(asked.outcomes)
    for need in graph.node(step).needs:
        try:
            found[need] = _json((folder / need / "outcome").read_text("utf-8"), f"The outcome of {need!r}")
        except FileNotFoundError:
            raise NotFound(
                f"Step {step!r} needs the outcome of {need!r}, and {folder / need / 'outcome'} is not there.",
                fix=f"run {need!r} before, with --to {folder / need}.",
            ) from None
    return Asked(asked.parameters, found)


def run_step(project: Project, pipeline: str, step: str, scope: Asked, *, item: str | None = None) -> Outcome:
    """Run one step, without a job, and return its outcome; see `jobs.pipelines.alone`.

    Args:
        item: JSON of the element of a mapped step.

    Raises:
        NotFound: There is no such pipeline or step.
        Invalid: The scope, the item or the result is not valid.
    """
    graph = project.definitions.pipeline(pipeline)
    call = _asks if graph.node(step).kind == "approval" else partial(call_step, project)
    if item is None:
        return run_alone(graph, step, scope.parameters, scope.outcomes, call)
    return run_alone(graph, step, scope.parameters, scope.outcomes, call, item=_json(item, "The item"))


def run_wrapped(project: Project, pipeline: str, step: str, scope: Asked, wrapped: str) -> Outcome:
    """Run a mapped step for an item as `write_outcome` wraps it, for engines that cannot loop over nothing."""
    found = _json(wrapped, "The wrapped item")
    if found == {}:
        return dict(NO_ITEM)
    if not isinstance(found, dict) or found.keys() != {"item"} or not isinstance(found["item"], str):
        raise Invalid(f"The wrapped item is {wrapped[:200]}.", fix='give {"item": JSON as a text}, or {} for none.')
    return run_step(project, pipeline, step, scope, item=found["item"])


def list_items(project: Project, pipeline: str, step: str, scope: Asked) -> Outcome:
    """Return the items of a mapped step; see `jobs.pipelines.alone`."""
    return items_of(project.definitions.pipeline(pipeline), step, scope.parameters, scope.outcomes)


def write_outcome(outcome: Outcome, folder: Path, *, wrapped: bool = False) -> None:
    """Write an outcome as files, for engines that read a step's outputs from them.

    `outcome` holds it as JSON, `asks` is "true" unless the step was skipped. `items`, of a mapped step, is a list of
    `{"item": JSON as a text}`, and `[{}]` if there is nothing to do. No file has `{{`, which such an engine fills in.

    Args:
        wrapped: Write JSON of JSON: the engine reads it when it collects the outcomes of items, and writes it anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = untagged(json.dumps(outcome))
    write_atomic(folder / "outcome", (json.dumps(text) if wrapped else text).encode())
    write_atomic(folder / "asks", b"false" if "skipped" in outcome else b"true")
    if "items" in outcome:
        items: list[dict[str, Plain]] = [{"item": untagged(json.dumps(each))} for each in outcome["items"]]
        write_atomic(folder / "items", json.dumps(items or [{}]).encode())


def answer(project: Project, event: Any) -> Outcome:
    """Return the outcome of a task of Step Functions: the answer of the Lambda function that the export invokes.

    Raises:
        Invalid: The event is not one of the export's.
        StepFailed: At the end of a run: one of its steps failed.
    """
    match event:
        case {"pipeline": str(pipeline), "ended": dict(outcomes)}:
            bad = failed(outcomes)
            if bad:
                raise StepFailed(
                    f"Of pipeline {pipeline!r} these steps failed: {', '.join(bad)}.", fix="see their logs."
                )
            return {"result": None}
        case {"pipeline": str(pipeline), "step": str(step), "scope": dict(scope)}:
            asked = read_scope(json.dumps(scope))
        case _:
            raise Invalid(
                f"{str(event)[:200]} is not a task of an exported pipeline.", fix="export the pipeline again."
            )
    if event.get("items"):
        return list_items(project, pipeline, step, asked)
    return run_step(project, pipeline, step, asked, item=json.dumps(event["item"]) if "item" in event else None)


def _asks(_node: Any, _inputs: Any) -> Plain:
    """Return the result of an approval: nothing. The engine does the waiting."""
    return None


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Invalid(f"{what} is not JSON: {error}.", fix="quote it for the shell.") from None
