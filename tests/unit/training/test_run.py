"""A run keeps what is logged, in order, whatever happens to the training function."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kit.waiting import wait_until
from mainspring.core.errors import Invalid, NotFound, StorageFull, Unavailable
from mainspring.core.time import SECOND, ManualClock
from mainspring.registry.adapters.memory import MemoryTracking
from mainspring.training.runs.run import Buffer, Run


class Recorder(MemoryTracking):
    """Memory that also keeps every call, can say that one has come, and can be full."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Sequence[tuple[str, float, int, int]]] = []
        self.came = threading.Event()
        self.full = False
        self.locked = 0  # calls that find the store locked

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
        if self.locked:
            self.locked -= 1
            self.came.set()
            raise Unavailable("Locked.")
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
    with pytest.raises(Invalid, match="not a number"), open_run(tracking) as run:
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
        with pytest.raises(ZeroDivisionError), run.prefixed("baseline.") as told:
            fail(told)
        assert (told.id, told.seed) == (run.id, 7)
        assert tracking.get(run.id).status == "RUNNING"
    assert dict(tracking.get(run.id).params) == {"trees": "5"}
    assert dict(tracking.get(run.id).metrics) == {"baseline.loss": 0.5}


def fail_in_the_background(run: Run) -> None:
    run.log_metric("loss", 1.0)
    assert run._buffer._thread is not None
    run._buffer._thread.join(30)
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


def test_what_could_not_be_written_is_written_later_in_its_order(tracking: Recorder) -> None:
    with open_run(tracking) as run:
        run.log_metric("loss", 1.0, 0)
        run.log_param("depth", 3)
        run.set_tag("stage", "first")
        tracking.locked = 1
        with pytest.raises(Unavailable):
            run.flush()
        run.log_metric("loss", 0.5, 1)
        run.set_tag("stage", "second")
        run.flush()
        assert [(name, value, step) for name, value, step, _ in tracking.calls[0]] == [
            ("loss", 1.0, 0),
            ("loss", 0.5, 1),
        ]
    record = tracking.get(run.id)
    assert (dict(record.params), record.tags["stage"]) == ({"depth": "3"}, "second")


def test_a_store_that_is_locked_for_a_while_does_not_end_the_training(tracking: Recorder) -> None:
    tracking.locked = 3
    with open_run(tracking, flush_every_s=0.01) as run:
        run.log_metric("loss", 1.0)
        wait_until(lambda: run.log_metric("other", 1.0) or not tracking.locked, "the store to be free")
    assert tracking.get(run.id).metrics["loss"] == 1.0


def tell_until_refused(buffer: Buffer) -> None:
    end = time.monotonic() + 30
    for step in count():
        assert time.monotonic() < end
        buffer.add([("loss", 1.0, step, 0)])
        time.sleep(0.005)


def test_a_store_that_stays_away_is_told_to_the_function_and_what_it_said_is_kept(tracking: Recorder) -> None:
    tracking.locked = 10**9
    run_id = tracking.start("late", {}, 0)
    buffer = Buffer(tracking, run_id, every_s=0.01, patience_s=0.1)
    buffer.start()
    with pytest.raises(Unavailable, match="Locked"):
        tell_until_refused(buffer)
    buffer.stop()
    tracking.locked = 0  # it is back at last
    with pytest.raises(Unavailable):
        buffer.flush()
    steps = [each for _, each, _ in tracking.history(run_id, "loss")]
    assert len(steps) > 1
    assert steps == list(range(len(steps)))


def test_much_is_written_before_its_time(tracking: Recorder) -> None:
    with open_run(tracking, flush_every_s=3600) as run:
        for step in range(20_000):
            run.log_metric("loss", 1.0, step)
        assert tracking.came.wait(30)


@pytest.mark.parametrize("name", ["loss!", "", "a//b", "../up", "x" * 251, 7])
def test_a_badly_named_metric_is_named_with_one_that_would_do(tracking: Recorder, name: Any) -> None:
    with pytest.raises(Invalid, match=r"cannot name a metric.*Fix: ") as raised, open_run(tracking) as run:
        run.log_metrics({"good": 1.0, name: 1.0})
    assert repr(name)[:40] in str(raised.value)
    assert dict(tracking.get(run.id).metrics) == {}


def test_a_bad_name_of_a_parameter_a_tag_and_a_file(tracking: Recorder) -> None:
    run = open_run(tracking)
    with pytest.raises(Invalid, match="'a;b' cannot name a parameter"):
        run.log_param("a;b", 1)
    with pytest.raises(Invalid, match="'a;b' cannot name a tag"):
        run.set_tag("a;b", 1)
    with pytest.raises(Invalid, match=r"'\.\.' cannot name a file of a run"):
        run.log_text("../b", "x")
    with pytest.raises(Invalid, match="'t' has 8001 characters"):
        run.set_tag("t", "x" * 8001)


@pytest.mark.parametrize("step", [1.5, "1", None])
def test_a_step_is_a_whole_number(tracking: Recorder, step: Any) -> None:
    with pytest.raises(Invalid, match="not a whole number"):
        open_run(tracking).log_metric("loss", 1.0, step)


def test_numbers_of_other_libraries_are_numbers(tracking: Recorder) -> None:
    import numpy as np

    with open_run(tracking) as run:
        run.log_metric("loss", np.float32(0.5), np.int64(3))
    assert tracking.history(run.id, "loss") == [(0.5, 3, 5 * SECOND)]


def test_files_texts_and_tags(tracking: Recorder, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"a,b\n")
    with open_run(tracking) as run:
        run.log_artefact("raw", b"\x00")
        run.log_artefact("table.csv", tmp_path / "table.csv")
        run.log_artefact("again.csv", str(tmp_path / "table.csv"))
        run.log_text("notes/first.md", "größer")
        run.set_tags({"stage": "try", "fold": 3})
        with pytest.raises(NotFound, match=r"absent\.csv does not exist"):
            run.log_artefact("absent.csv", tmp_path / "absent.csv")
    assert tracking.artefacts(run.id) == {"again.csv": 4, "notes/first.md": 8, "raw": 1, "table.csv": 4}
    assert tracking.artefact(run.id, "notes/first.md").decode() == "größer"
    assert {name: tracking.get(run.id).tags[name] for name in ("stage", "fold")} == {"stage": "try", "fold": "3"}


class Drawing:
    """As Matplotlib's figure is."""

    def savefig(self, into: Any, format: str) -> None:
        if format != "png":
            raise ValueError(f"Format {format!r} is not supported")
        into.write(b"\x89PNG")


class Page:
    """As Plotly's figure is."""

    def to_html(self) -> str:
        return "<html>"


def test_figures(tracking: Recorder) -> None:
    run = open_run(tracking)
    run.log_figure("plots/roc.png", Drawing())
    run.log_figure("plots/roc.html", Page())
    assert tracking.artefact(run.id, "plots/roc.png") == b"\x89PNG"
    assert tracking.artefact(run.id, "plots/roc.html") == b"<html>"
    with pytest.raises(Invalid, match=r"'roc\.doc'.*Fix: end the name with \.png"):
        run.log_figure("roc.doc", Drawing())
    with pytest.raises(Invalid, match="int is not a figure"):
        run.log_figure("roc.png", 3)


def test_a_nested_run_is_a_run_of_its_own_that_finishes_itself(tracking: Recorder) -> None:
    with open_run(tracking) as run:
        run.log_metric("loss", 1.0)
        with run.nested("fold 1", params={"fold": 1}) as fold:
            fold.log_metric("loss", 0.5)
            assert tracking.get(fold.id).status == "RUNNING"
        with pytest.raises(ZeroDivisionError), run.nested("fold 2", seed=8) as failing:
            fail(failing)
        with fold.prefixed("part.") as part:
            part.log_metric("loss", 0.25)
        fold.flush()
    record = tracking.get(fold.id)
    assert (record.model, record.status, record.ended_at) == ("late", "FINISHED", 5 * SECOND)
    assert (dict(record.metrics), dict(record.params)) == ({"loss": 0.5, "part.loss": 0.25}, {"fold": "1"})
    assert {name: record.tags[name] for name in ("mainspring.parent", "mainspring.name", "seed")} == {
        "mainspring.parent": run.id,
        "mainspring.name": "fold 1",
        "seed": "7",
    }
    assert (tracking.get(failing.id).status, failing.seed) == ("FAILED", 8)
    assert dict(tracking.get(run.id).metrics) == {"loss": 1.0}
    assert tracking.get(run.id).status == "RUNNING"


def test_the_machine_is_sampled_beside_the_function(tracking: Recorder) -> None:
    clock = ManualClock(5 * SECOND)
    run = Run(tracking, tracking.start("late", {}, SECOND), clock, seed=7, flush_every_s=0.01, system_every_s=0.02)
    with run:
        wait_until(lambda: len(tracking.history(run.id, "system/cpu_utilization_percentage")) >= 3, "three samples")
    metrics = tracking.get(run.id).metrics
    assert metrics["system/process_memory_usage_megabytes"] > 10
    assert 0 < metrics["system/system_memory_usage_percentage"] <= 100
    steps = [step for _, step, _ in tracking.history(run.id, "system/cpu_utilization_percentage")]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 3
