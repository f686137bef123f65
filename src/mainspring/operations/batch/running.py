"""Batch runs: planned, carried out by chunks in a few threads, resumed after a kill, and reported."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from mainspring.core.errors import Conflict
from mainspring.features.offline import point_in_time_pieces
from mainspring.features.offline.observed import AT
from mainspring.monitoring.served import served
from mainspring.operations.auditing import audit
from mainspring.operations.batch.planning import joined_of, make_plan, output_of, version_for
from mainspring.operations.batch.values import BatchReport, Chunk, Output, Request, together
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.serving.batch.plan import Plan, prediction_ids
from mainspring.serving.batch.reading import read_chunks
from mainspring.serving.batch.scoring import Sampling, Scorer, instants
from mainspring.stats.drift import judge

if TYPE_CHECKING:
    from mainspring.registry.model import Bundle
    from mainspring.serving.ports import Executor

ACTION = "batch.run"
SAMPLED_ROWS = 100_000  # of a run, for its drift
_LOCK_S = 5.0

Told = Callable[[int, int, float | None], None]  # rows done, total rows, seconds to the end


def run_batch(
    project: Project, request: Request, *, progress: Told | None = None, confined: Path | None = None
) -> BatchReport:
    """Predict for all rows of an input, each exactly once, and return the report.

    An unfinished run of the same request is carried on by its plan: with its version, its instant and its input. With
    `request.new` what is new is read afterwards.

    Args:
        progress: Called after each chunk; what it raises stops the run, which can be resumed.
        confined: Folder outside of which no file is read or written; `None` for no limit.

    Raises:
        NotFound: There is no such endpoint, version, input or table.
        InvalidData: The input does not fit the model.
        Conflict: The output is there already, or another process writes it.
    """
    output = output_of(project, request.output, confined)
    lock = f"batch-{hashlib.sha256(output.name.encode()).hexdigest()[:32]}"
    with project.locks.hold(lock, wait_s=_LOCK_S):
        earlier = output.runs()
        last = earlier[-1] if earlier else None
        report = None if last is None else output.report(last)
        if last is not None and report is not None and request.asked_by and last.asked_by == request.asked_by:
            return report
        if last is not None and report is None:
            _check_same(last, request, output)
            report = _carry_out(project, last, output, request, progress)
            if not request.new:
                return report
        elif earlier and not request.new:
            raise Conflict(
                f"The output {output.name} is there already: run {earlier[-1].run} of {earlier[-1].target} wrote it.",
                fix="name another output, or add the predictions of new rows alone: --new.",
            )
        version = version_for(project, request.target)
        bundle = project.bundles.load(version.digest)
        executor = executors(project, one_thread=True)(bundle)
        try:
            plan = make_plan(project, request, output, executor, bundle, version, earlier, confined)
        finally:
            executor.close()
        if plan is None:
            return _nothing_new(project, earlier[-1], output)
        output.begin(plan)
        audit(project, ACTION, f"model/{plan.model}", f"{plan.model}:{plan.version}, {plan.rows} rows, {output.name}")
        return _carry_out(project, plan, output, request, progress)


def _check_same(plan: Plan, request: Request, output: Output) -> None:
    was, asked = (plan.target, plan.source, plan.as_of), (request.target, request.source, request.as_of)
    if was != asked:
        raise Conflict(
            f"The output {output.name} has an unfinished run of {plan.target} --from {plan.source!r} --as-of "
            f"{plan.as_of}, which is not what is asked.",
            fix="finish it by the same command, or name another output.",
        )


def _carry_out(project: Project, plan: Plan, output: Output, request: Request, progress: Told | None) -> BatchReport:
    begun = time.monotonic()
    bundle = project.bundles.load(plan.digest)
    done = output.done(plan)
    executor = executors(project, one_thread=True)(bundle)
    try:
        written = _scored(project, plan, bundle, executor, output, done, request.threads, progress)
    finally:
        executor.close()
    report = _report(project, plan, bundle, output, done, written, time.monotonic() - begun)
    output.finish(plan, report)
    return report


def _scored(
    project: Project, plan: Plan, bundle: Bundle, executor: Executor, output: Output, done: dict[int, Chunk],
    threads: int, progress: Told | None,
) -> list[Chunk]:  # fmt: skip
    """Score and write the chunks that are not done."""
    pending = [number for number in range(plan.chunks) if number not in done]
    scorer = scorer_of(bundle, executor, plan)
    pace = _Pace(plan, sum(_rows(plan, number) for number in done), progress)

    def score(number: int, given: pa.Table, rows: pa.Table) -> Chunk:
        first, _ = plan.span(number)
        return output.write(plan, number, scorer.score(given, rows, partial(prediction_ids, plan, first), first))

    workers = threads or _cores()
    running: set[Future[Chunk]] = set()
    written: list[Chunk] = []

    def collect(at_most: int) -> None:
        nonlocal running
        while len(running) > at_most:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for each in ended:
                written.append(each.result())
                pace.tell(_rows(plan, written[-1].number))

    with (
        ThreadPoolExecutor(workers, thread_name_prefix="batch") as pool,
        closing(_chunks(project, plan, bundle, pending)) as chunks,
    ):
        try:
            for number, given, rows in chunks:
                running.add(pool.submit(score, number, given, rows))
                collect(workers)  # a chunk is read ahead of those that are scored
            collect(0)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return written


def _chunks(
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


class _Pace:
    """Progress in rows, with an estimate of the end by this attempt's rate."""

    def __init__(self, plan: Plan, before: int, tell: Told | None) -> None:
        self._total = plan.rows
        self._before = self._done = before
        self._begun = time.monotonic()
        self._tell = tell
        if tell is not None:
            tell(before, plan.rows, None)

    def tell(self, rows: int) -> None:
        self._done += rows
        if self._tell is not None:
            passed, here = time.monotonic() - self._begun, self._done - self._before
            left = passed / here * (self._total - self._done) if here else None
            self._tell(self._done, self._total, left)


def _rows(plan: Plan, number: int) -> int:
    first, end = plan.span(number)
    return end - first


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _report(
    project: Project,
    plan: Plan,
    bundle: Bundle,
    output: Output,
    done: Mapping[int, Chunk],
    written: Sequence[Chunk],
    seconds: float,
) -> BatchReport:
    # In the order of the rows, so that sums are those of an undisturbed run to the last bit.
    predicted, reasons, sketch = together(sorted([*done.values(), *written], key=lambda chunk: chunk.number))
    reference, price = served(bundle).reference, project.settings.batch_price
    drift = () if sketch is None or reference is None else tuple(judge(reference, sketch))
    here = sum(_rows(plan, chunk.number) for chunk in written)
    return BatchReport(
        run=plan.run,
        target=plan.target,
        model=plan.model,
        version=plan.version,
        digest=plan.digest,
        source=plan.source,
        output=output.name,
        as_of=plan.as_of,
        at=plan.at,
        rows=plan.rows,
        predicted=predicted,
        quarantined=reasons.total(),
        reasons=dict(reasons.most_common()),
        chunks=plan.chunks,
        resumed=len(done),
        seconds=round(seconds, 3),
        rows_per_s=round(here / seconds, 1) if seconds else 0.0,
        cost=None if price is None else round(price[0] * seconds / 3600, 6),
        currency="" if price is None else price[1],
        sampled=0 if sketch is None or not sketch.columns else int(sketch.count("rows").max()),
        drifted=tuple(each.column for each in drift if each.drifted),
        drift=drift,
        ended_at=project.wall.now(),
    )


def _nothing_new(project: Project, last: Plan, output: Output) -> BatchReport:
    bundle = project.bundles.load(last.digest)
    return _report(project, msgspec.structs.replace(last, files=()), bundle, output, {}, [], 0.0)
