"""Chunks of a batch run beyond this process: asked of an engine here, scored and written by its workers there.

The request and the answers are JSON texts, as those of steps are (docs/adr/0038-steps-elsewhere.md). What is written is
seen in the output.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.core import errors
from mainspring.core.errors import MainspringError, Unavailable
from mainspring.operations.batch.chunks import chunks_of, writer
from mainspring.operations.batch.planning import output_of
from mainspring.operations.batch.values import Chunk, Output
from mainspring.project import Project, open_project
from mainspring.project.settings import load_settings
from mainspring.serving.batch.plan import Plan, read_plan

if TYPE_CHECKING:
    from mainspring.deploy.engines.ports import ChunkEngine

ENTRY = __name__
STALLED_S = 3_600.0  # without a new chunk
_LOOK_S = 1.0
_LOOKING = 0.05  # at most this share of the time goes into looking at the output
_CALLS = 8  # of a worker, so that all end at about the same time; with features one, since each call reads all facts
_KINDS = {
    kind.__name__: kind
    for kind in (
        errors.Conflict, errors.Corrupt, errors.Invalid, errors.InvalidData, errors.NotFound, errors.StorageFull,
        errors.Unavailable,
    )
}  # fmt: skip


def scored_on(
    engine: ChunkEngine, project: Project, plan: Plan, output: Output, pending: Sequence[int]
) -> Generator[Chunk, None, None]:
    """Score chunks on an engine, and yield each when the output has it.

    Raises:
        MainspringError: What failed on a worker.
        Unavailable: The engine does not answer, or no chunk was written for an hour.
    """
    if not pending:
        return
    left, moved, looked, pause = set(pending), time.monotonic(), 0.0, _LOOK_S
    with closing(engine.run(ENTRY, _request(project, plan, output), pending, 1 if plan.joined else _CALLS)) as ticks:
        for answers in ticks:
            for answer in answers:
                _check(answer)
            now = time.monotonic()
            if now - looked >= pause:
                for chunk in _new(plan, output, left):
                    moved = now
                    yield chunk
                looked = time.monotonic()
                pause = max(_LOOK_S, (looked - now) / _LOOKING)
            if now - moved > STALLED_S:
                raise Unavailable(
                    f"The engine has written no chunk for {STALLED_S:,.0f} s; {len(left):,} are left.",
                    fix="see whether its workers have processors, then run the same command again: it goes on.",
                )
    yield from _new(plan, output, left)
    if left:
        raise Unavailable(
            f"The engine ended, but the chunks {sorted(left)[:5]} are not in {output.name}.",
            fix="see that its workers have the project's folder and the output at the same paths as this machine.",
        )


def _request(project: Project, plan: Plan, output: Output) -> str:
    settings = project.settings
    return json.dumps(
        {
            "root": str(settings.root),
            "profile": settings.profile,
            "output": output.name,
            "plan": msgspec.json.encode(plan).decode(),
        }
    )


def _new(plan: Plan, output: Output, left: set[int]) -> list[Chunk]:
    """Return the facts of chunks that were written since the last look, and take them out of `left`."""
    found = output.done(plan, sorted(left))
    left.difference_update(found)
    return list(found.values())


def _check(answer: str) -> None:
    found = json.loads(answer)
    if "failed" in found:
        raise _KINDS.get(found["kind"], MainspringError)(found["failed"], fix=found["fix"])


def answers(request: str, chunks: Sequence[int]) -> Iterator[str]:
    """Score and write chunks on a worker, and yield an answer for each; the last one may say what failed."""
    asked = json.loads(request)
    plan = read_plan(asked["plan"].encode())
    try:
        with closing(open_project(load_settings(Path(asked["root"]), asked["profile"]))) as project:
            bundle, output = project.bundles.load(plan.digest), output_of(project, asked["output"])
            with (
                writer(project, plan, bundle, output) as write,
                closing(chunks_of(project, plan, bundle, chunks)) as found,
            ):
                for number, given, rows in found:
                    write(number, given, rows)
                    yield json.dumps({"done": number})
    except MainspringError as error:
        yield json.dumps({"failed": error.what, "fix": error.fix, "kind": type(error).__name__})
