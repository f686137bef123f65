"""Parts of the conformance suites that are the same for indexes of vectors and of texts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.schema import DType, Schema
from mainspring.vectors.ports import TextStore, VectorStore

Spec = TypeVar("Spec")

FIELDS: Schema = {
    "kind": DType.String,
    "part": DType.Int64,
    "year": DType.Int32,
    "price": DType.Float64,
    "rough": DType.Float32,
    "public": DType.Boolean,
    "seen": DType.Timestamp,
}
UNNAMED = ("", "../i", "a/b", "a b", ".", "'", "x" * 200)
"""Names that an index cannot have."""


class Stored:
    """Suite whose store's files may be read."""

    @pytest.fixture
    def stored(self) -> Callable[[], Iterable[bytes]]:
        """Return a function that reads all files of the store; none where they are not ours to read."""
        return tuple


def check_absent(stored: Callable[[], Iterable[bytes]], *parts: bytes) -> None:
    """Raise if a file of a store contains one of the parts."""
    for content in stored():
        if found := [part for part in parts if part in content]:
            raise AssertionError(f"still there: {found}")


def check_names(
    store: VectorStore | TextStore, create: Callable[[str, Spec], object], spec: Spec, *others: Spec
) -> None:
    """Raise unless an equal specification opens an index, another is a conflict, and what is no name is refused."""
    with pytest.raises(NotFound):
        store.open("n")
    store.drop("n")
    create("n", spec)
    create("n", spec)
    for other in others:
        with pytest.raises(Conflict):
            create("n", other)
    for name in UNNAMED:
        with pytest.raises(Invalid):
            create(name, spec)
    store.drop("n")
    store.drop("n")
    with pytest.raises(NotFound):
        store.open("n")


def await_that(holds: Callable[[], bool], wait_s: float = 60.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + wait_s
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not after {wait_s} s")
        time.sleep(0.01)


def run_at_once(*work: Callable[[], None]) -> None:
    """Run each piece of work in a thread of its own, and raise the first error."""
    with _threads(work):
        pass


@contextmanager
def repeated(work: Callable[[], None], threads: int) -> Iterator[None]:
    """Repeat work in threads during a block, and raise their first error after it."""
    done = threading.Event()

    def repeat() -> None:
        while not done.is_set():
            work()

    with _threads([repeat] * threads):
        try:
            yield
        finally:
            done.set()


@contextmanager
def _threads(work: Iterable[Callable[[], None]]) -> Iterator[None]:
    failures = list[BaseException]()

    def run(each: Callable[[], None]) -> None:
        try:
            each()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
