"""Batch runs: planned, carried out by chunks in a few threads, resumed after a kill, and reported."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.core.cores import usable_cores
from mainspring.core.errors import Conflict
from mainspring.cost.budgets.declaring import QUEUE
from mainspring.cost.usage import BATCH, Subject
from mainspring.monitoring.served import served
from mainspring.operations.auditing import audit
from mainspring.operations.batch.chunks import chunks_of, writer
from mainspring.operations.batch.elsewhere import scored_on
from mainspring.operations.batch.planning import make_plan, output_of, version_for
from mainspring.operations.batch.values import BatchReport, Chunk, Output, Request, together
from mainspring.operations.budgets.acting import check_hold, model_of
from mainspring.operations.cost.teams import charging
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.serving.batch.plan import Plan
from mainspring.stats.drift import judge

if TYPE_CHECKING:
    from mainspring.deploy.engines.ports import ChunkEngine
    from mainspring.registry.model import Bundle

ACTION = "batch.run"
_LOCK_S = 5.0

Told = Callable[[int, int, float | None], None]  # rows done, total rows, seconds to the end


def run_batch(
    project: Project,
    request: Request,
    *,
    engine: ChunkEngine | None = None,
    progress: Told | None = None,
    confined: Path | None = None,
) -> BatchReport:
    """Predict for all rows of an input, each exactly once, and return the report.

    An unfinished run of the same request is carried on by its plan: with its version, its instant and its input. With
    `request.new` what is new is read afterwards.

    Args:
        engine: Where the chunks are scored; `None` for threads of this process.
        progress: Called after each chunk; what it raises stops the run, which can be resumed.
        confined: Folder outside of which no file is read or written; `None` for no limit.

    Raises:
        NotFound: There is no such endpoint, version, input or table.
        InvalidData: The input does not fit the model.
        Conflict: The output is there already, or another process writes it.
        Unavailable: The engine does not answer, or has no processor free.
        BudgetExceeded: A budget holds batches back.
    """
    model = model_of(project, request.target)
    with charging(project, BATCH, model):
        check_hold(project, QUEUE, f"The batch of {request.target}", model)
        return _run(project, request, engine, progress, confined)


def _run(
    project: Project, request: Request, engine: ChunkEngine | None, progress: Told | None, confined: Path | None
) -> BatchReport:
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
            report = _carry_out(project, last, output, request, engine, progress)
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
        return _carry_out(project, plan, output, request, engine, progress)


def _check_same(plan: Plan, request: Request, output: Output) -> None:
    was, asked = (plan.target, plan.source, plan.as_of), (request.target, request.source, request.as_of)
    if was != asked:
        raise Conflict(
            f"The output {output.name} has an unfinished run of {plan.target} --from {plan.source!r} --as-of "
            f"{plan.as_of}, which is not what is asked.",
            fix="finish it by the same command, or name another output.",
        )


def _carry_out(
    project: Project, plan: Plan, output: Output, request: Request, engine: ChunkEngine | None, progress: Told | None
) -> BatchReport:
    begun = time.monotonic()
    with project.metering.of(Subject(BATCH, plan.run, plan.version, plan.model)):
        done = output.done(plan, range(plan.chunks))
        written = _scored(project, plan, output, done, request, engine, progress)
        bundle = project.bundles.load(plan.digest)
        report = _report(project, plan, bundle, output, done, written, time.monotonic() - begun)
        output.finish(plan, report)
    return report


def _scored(
    project: Project, plan: Plan, output: Output, done: dict[int, Chunk], request: Request, engine: ChunkEngine | None,
    progress: Told | None,
) -> list[Chunk]:  # fmt: skip
    """Score and write the chunks that are not done, and return their facts."""
    pending = [number for number in range(plan.chunks) if number not in done]
    pace = _Pace(plan, sum(_rows(plan, number) for number in done), progress)
    chunks = (
        _here(project, plan, output, pending, request.threads or usable_cores())
        if engine is None
        else scored_on(engine, project, plan, output, pending)
    )
    written = []
    with closing(chunks):
        for chunk in chunks:
            written.append(chunk)
            pace.tell(_rows(plan, chunk.number))
    return written


def _here(
    project: Project, plan: Plan, output: Output, pending: Sequence[int], workers: int
) -> Generator[Chunk, None, None]:
    """Score chunks in threads of this process, and yield each when it is written."""
    bundle = project.bundles.load(plan.digest)
    running: set[Future[Chunk]] = set()

    def ended(at_most: int) -> Iterator[Chunk]:
        nonlocal running
        while len(running) > at_most:
            found, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in found)

    with (
        writer(project, plan, bundle, output) as write,
        ThreadPoolExecutor(workers, thread_name_prefix="batch") as pool,
        closing(chunks_of(project, plan, bundle, pending)) as chunks,
    ):
        try:
            for number, given, rows in chunks:
                running.add(pool.submit(write, number, given, rows))
                yield from ended(workers)  # a chunk is read ahead of those that are scored
            yield from ended(0)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


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
