"""The job that bench/peer_pipeline.py runs in Dagster, in a module of its own since its processes import it."""

import os

from dagster import GraphDefinition, In, Nothing, OpExecutionContext, job, op  # noqa: F401


@op
def first() -> int:
    return 0


@op
def add(number: int) -> int:
    return number + 1


@op
def total(numbers: list[int]) -> int:
    return sum(numbers)


@job
def build() -> None:
    """A chain, or a fan-out that one step collects."""
    steps = int(os.environ["BENCH_STEPS"])
    if os.environ["BENCH_SHAPE"] == "chain":
        number = first()
        for _ in range(steps - 1):
            number = add(number)
    else:
        begun = first()
        total([add(begun) for _ in range(steps - 1)])
