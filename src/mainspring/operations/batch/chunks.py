"""Chunks of a planned run: read, joined with their features, scored and written, on this machine or on a worker."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial

import pyarrow as pa

from mainspring.features.offline import point_in_time_pieces
from mainspring.features.offline.observed import AT
from mainspring.monitoring.served import served
from mainspring.operations.batch.planning import joined_of
from mainspring.operations.batch.values import Chunk, Output
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.model import Bundle
from mainspring.serving.batch.plan import Plan, prediction_ids
from mainspring.serving.batch.reading import read_chunks
from mainspring.serving.batch.scoring import Sampling, Scorer, instants
from mainspring.serving.ports import Executor

SAMPLED_ROWS = 100_000  # of a run, for its drift

Write = Callable[[int, pa.Table, pa.Table], Chunk]  # a chunk's number, its rows, and with the model's inputs


@contextmanager
def writer(project: Project, plan: Plan, bundle: Bundle, output: Output) -> Iterator[Write]:
    """Load the plan's model; the block gets what scores and writes a chunk, for any number of threads."""
    executor = executors(project, one_thread=True)(bundle)
    try:
        scorer = scorer_of(bundle, executor, plan)

        def write(number: int, given: pa.Table, rows: pa.Table) -> Chunk:
            first, _ = plan.span(number)
            return output.write(plan, number, scorer.score(given, rows, partial(prediction_ids, plan, first), first))

        yield write
    finally:
        executor.close()


def chunks_of(
    project: Project, plan: Plan, bundle: Bundle, pending: Sequence[int]
) -> Generator[tuple[int, pa.Table, pa.Table]]:
    """Yield the number of each chunk, its rows as they are read, and with the model's inputs."""
    schema = plan.columns
    joined = joined_of(bundle) if plan.joined else None
    if joined is None:
        for number, rows in read_chunks(plan, schema, pending):
            yield number, rows, rows
        return
    if not pending:
        return

    def observed() -> Iterator[pa.Table]:
        return (observed_at(rows, plan) for _, rows in read_chunks(plan, schema, pending))

    with closing(
        point_in_time_pieces(
            observed, joined.groups, lambda source: project.lake.scan(source, plan.tables[source]),
            schema=joined.schema, at=AT, memory_limit="512MB", temp=project.settings.state / "tmp",
        )
    ) as pieces:  # fmt: skip
        for number, rows in zip(pending, pieces, strict=True):
            yield number, rows.select(schema.names), rows


def observed_at(rows: pa.Table, plan: Plan) -> pa.Table:
    """Return rows with the instant at which their features are read."""
    # In a column of its own: features may be computed from the column with the instants, too.
    return rows.append_column(AT, rows[plan.as_of] if plan.at is None else instants(plan.at, len(rows)))


def scorer_of(bundle: Bundle, executor: Executor, plan: Plan) -> Scorer:
    """Return the scorer of a plan's version."""
    description, joined = served(bundle), joined_of(bundle) if plan.joined else None
    sampling = None
    if description.ruler is not None:
        sampling = Sampling(description.ruler, description.score, max(1, plan.rows // SAMPLED_ROWS))
    return Scorer(
        bundle,
        executor,
        version=plan.version,
        keys=() if joined is None else joined.keys,
        at=plan.as_of if plan.at is None else plan.at,
        carried=plan.carried,
        call_rows=plan.call_rows,
        sampling=sampling,
    )
