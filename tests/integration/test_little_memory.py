"""Commands in a limited address space (`ulimit -v`): they work, or say at once that it is too little."""

from __future__ import annotations

import pytest

from kit.depot import MODEL, Depot, Ran
from kit.depth import deep
from mainspring.cli import exits


def within(depot: Depot, mib: int, *arguments: object) -> Ran:
    return depot.run(*arguments, prefix=("sh", "-c", f'ulimit -v {mib << 10}; exec "$@"', "sh"), timeout_s=300)


@deep
@pytest.mark.parametrize("command", ["train", "monitor"])
def test_two_gigabytes_are_enough_for_little_data(depot: Depot, command: str) -> None:
    ran = within(depot, 2048, command, MODEL)
    assert ran.code == exits.OK, ran


@pytest.mark.parametrize("command", ["train", "monitor"])
def test_what_is_too_little_for_anything_is_said(depot: Depot, command: str) -> None:
    ran = within(depot, 700, command, MODEL)
    assert ran.code == exits.FULL, ran
    assert "not enough memory: the process can have 700 MiB" in ran.stderr
    assert "Fix: raise the limit (`ulimit -v unlimited`)" in ran.stderr
