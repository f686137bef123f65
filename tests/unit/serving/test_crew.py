"""A crew of executors of a function in this process: streams beside calls, and a crew that is closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from kit.models import function_bundle
from kit.waiting import wait_until
from mainspring.core.errors import Unavailable
from mainspring.registry.model import TensorSpec
from mainspring.serving.adapters.function import FunctionExecutor
from mainspring.serving.plane.executor import ModelFailed
from mainspring.serving.scaling.crew import Crew

SPECS = [TensorSpec("x", "FP32", (-1,))], [TensorSpec("y", "FP32", (-1,))]
ROW = {"x": np.array([3], np.float32)}


class Model:
    """A function that counts up to its row in parts, and sees how many calls each executor runs at once."""

    def __init__(self) -> None:
        self.most, self.made = 0, 0
        self.going: dict[int, int] = {}
        self.go = threading.Event()
        self._changing = threading.Lock()

    @contextmanager
    def computing(self, number: int) -> Iterator[None]:
        with self._changing:
            self.going[number] = self.going.get(number, 0) + 1
            self.most = max(self.most, self.going[number])
        try:
            self.go.wait(10)
            yield
        finally:
            with self._changing:
                self.going[number] -= 1

    def executor(self) -> FunctionExecutor:
        self.made += 1
        number = self.made

        def count(x: Any) -> Any:
            for each in range(int(x[0])):
                with self.computing(number):
                    found = np.full(len(x), each, np.float32)
                yield found

        return FunctionExecutor(function_bundle("kit:count", "0" * 64, *SPECS), lambda _: count)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def crew(model: Model) -> Iterator[Crew]:
    made = Crew(model.executor())
    yield made
    made.close()


def test_a_part_of_a_stream_has_its_executor_alone(model: Model, crew: Crew) -> None:
    model.go.set()
    slow = crew.events(ROW, 1)
    assert next(slow)["y"].tolist() == [0]
    assert crew.predict(ROW, 1)["y"].tolist() == [2]  # a stream that nobody reads keeps nobody waiting
    model.go.clear()
    with ThreadPoolExecutor(4) as threads:
        calls = [
            threads.submit(crew.predict, ROW, 1),
            threads.submit(next, slow),
            threads.submit(next, crew.events(ROW, 1)),
        ]
        wait_until(lambda: sum(model.going.values()) == 1, "one call")
        model.go.set()
        for call in calls:
            call.result(10)
    assert model.most == 1
    assert [each["y"].tolist() for each in slow] == [[2]]


def test_streams_are_spread_and_no_executor_leaves_beneath_one(model: Model, crew: Crew) -> None:
    model.go.set()
    crew.add(model.executor)
    streams = [crew.events(ROW, 1) for _ in range(2)]
    for each in streams:
        next(each)
    assert sorted(model.going) == [1, 2]
    assert (crew.drop(), crew.size) == (False, 2)
    assert [each["y"].tolist() for each in streams[1]] == [[1], [2]]
    assert (crew.drop(), crew.size) == (True, 1)
    streams[0].close()
    assert crew.predict(ROW, 1, 2)["y"].tolist() == [2]


def test_a_closed_crew_says_so(model: Model, crew: Crew) -> None:
    model.go.set()
    crew.add(model.executor)
    rows = {"x": np.array([3, 3], np.float32)}
    assert crew.predict(rows, 2, 2)["y"].tolist() == [2, 2]
    begun = crew.events(ROW, 1)
    next(begun)
    crew.close()
    for executors in (1, 2):
        with pytest.raises(Unavailable, match="closed"):
            crew.predict(rows, 2, executors)
    with pytest.raises(ModelFailed, match="closed"):
        next(crew.events(ROW, 1))
    begun.close()
