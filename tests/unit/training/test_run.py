"""A run keeps what is logged, in order, whatever happens to the training function."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence

import pytest

from mainspring.core.errors import Invalid, StorageFull
from mainspring.core.time import SECOND, ManualClock
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.training.run import Run


class Recorder(MemoryTracking):
    """Memory that also keeps every call, can say that one has come, and can be full."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Sequence[tuple[str, float, int, int]]] = []
        self.came = threading.Event()
        self.full = False

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Sequence[tuple[str, float, int, int]] = (),
        tags: Mapping[str, str] | None = None,
    ) -> None:
        if self.full:
            self.came.set()
            raise StorageFull("No space left.")
        super().log(run_id, params=params, metrics=metrics, tags=tags)
        self.calls.append(list(metrics))
        self.came.set()


@pytest.fixture
def tracking() -> Recorder:
    return Recorder()


def open_run(tracking: MemoryTracking, flush_every_s: float = 60.0) -> Run:
    clock = ManualClock(5 * SECOND)
    return Run(tracking, tracking.start("late", {}, SECOND), clock, seed=7, flush_every_s=flush_every_s)


def fail(run: Run) -> None:
    run.log_metric("loss", 0.5)
    raise ZeroDivisionError


def test_many_words_are_one_batch_in_order(tracking: Recorder) -> None:
    with open_run(tracking) as run:
        for step in range(500):
            run.log_metric("loss", 1.0 / (step + 1), step)
        run.log_metrics({"a": 1, "b": 2})
        run.log_params({"depth": 3, "rate": 0.1})
    (batch,) = tracking.calls
    assert [(name, step, at) for name, _, step, at in batch[:500]] == [("loss", n, 5 * SECOND) for n in range(500)]
    assert [(name, value) for name, value, *_ in batch[500:]] == [("a", 1.0), ("b", 2.0)]
    assert dict(tracking.get(run.id).params) == {"depth": "3", "rate": "0.1"}
    assert tracking.get(run.id).status == "RUNNING"


def test_an_exception_loses_nothing_and_fails_the_run(tracking: Recorder) -> None:
    with pytest.raises(ZeroDivisionError), open_run(tracking) as run:
        fail(run)
    record = tracking.get(run.id)
    assert (record.status, record.ended_at, dict(record.metrics)) == ("FAILED", 5 * SECOND, {"loss": 0.5})


def test_an_interrupt_is_a_kill(tracking: Recorder) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tracking) as run:
        raise KeyboardInterrupt
    assert tracking.get(run.id).status == "KILLED"


def test_it_is_written_while_the_function_still_runs(tracking: Recorder) -> None:
    with open_run(tracking, flush_every_s=0.01) as run:
        run.log_metric("loss", 0.5)
        assert tracking.came.wait(30)
        assert tracking.get(run.id).metrics["loss"] == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_named(tracking: Recorder, value: float) -> None:
    with pytest.raises(Invalid, match=rf"'val_loss' at step 12 is {value}"), open_run(tracking) as run:
        run.log_metric("val_loss", value, 12)


def test_of_several_metrics_with_a_wrong_one_none_is_kept(tracking: Recorder) -> None:
    with pytest.raises(Invalid, match="'b'"), open_run(tracking) as run:
        run.log_metrics({"a": 1.0, "b": math.nan})
    assert dict(tracking.get(run.id).metrics) == {}


@pytest.mark.parametrize("value", ["x", None, [1]])
def test_what_is_no_number_is_named(tracking: Recorder, value: object) -> None:
    with pytest.raises(Invalid, match="no number"), open_run(tracking) as run:
        run.log_metric("loss", value)  # type: ignore[arg-type]


def test_a_parameter_does_not_change(tracking: Recorder) -> None:
    with open_run(tracking) as run:
        run.log_param("depth", 3)
        run.log_param("depth", "3")
        with pytest.raises(Invalid, match="'depth' is '3' in this run and cannot become '4'"):
            run.log_params({"rate": 1, "depth": 4})
    assert dict(tracking.get(run.id).params) == {"depth": "3"}


def test_a_parameter_too_long_for_the_store_is_refused(tracking: Recorder) -> None:
    with open_run(tracking) as run:
        run.log_param("text", "x" * 6000)
        with pytest.raises(Invalid, match="6001 characters"):
            run.log_param("longer", "x" * 6001)


def test_a_child_writes_under_its_prefix_and_never_closes_the_run(tracking: Recorder) -> None:
    with open_run(tracking) as run:
        run.log_param("trees", 5)
        with pytest.raises(ZeroDivisionError), run.child("baseline.") as told:
            fail(told)
        assert (told.id, told.seed) == (run.id, 7)
        assert tracking.get(run.id).status == "RUNNING"
    assert dict(tracking.get(run.id).params) == {"trees": "5"}
    assert dict(tracking.get(run.id).metrics) == {"baseline.loss": 0.5}


def fail_in_the_background(run: Run) -> None:
    run.log_metric("loss", 1.0)
    assert run._flusher is not None
    run._flusher.join(30)
    run.log_metric("loss", 0.5)
    raise AssertionError("the second word was not refused")


def test_a_full_disk_in_the_background_is_told_to_the_function(tracking: Recorder) -> None:
    tracking.full = True
    with pytest.raises(StorageFull), open_run(tracking, flush_every_s=0.01) as run:
        fail_in_the_background(run)


def test_a_full_disk_at_the_end_is_told(tracking: Recorder) -> None:
    tracking.full = True
    with pytest.raises(StorageFull), open_run(tracking) as run:
        run.log_metric("loss", 1.0)


def test_a_full_disk_does_not_hide_the_first_error(tracking: Recorder) -> None:
    tracking.full = True
    with pytest.raises(ZeroDivisionError), open_run(tracking) as run:
        fail(run)


def test_threads_lose_nothing(tracking: Recorder) -> None:
    with open_run(tracking, flush_every_s=0.001) as run:

        def work(number: int) -> None:
            for step in range(200):
                run.log_metric(f"t{number}", float(step), step)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    logged = [entry for batch in tracking.calls for entry in batch]
    for number in range(4):
        assert [step for name, _, step, _ in logged if name == f"t{number}"] == list(range(200))
