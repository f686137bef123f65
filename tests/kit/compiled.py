"""Files of tests compiled with pytest's assertions, once for all workers of a run.

All workers import the same files in the same order: in a new checkout each would compile each of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.assertion import rewrite


def compile_share(config: pytest.Config, number: int, count: int) -> None:
    """Compile each `count`-th file of the tests that are asked for, from the `number`-th on, where pytest looks."""
    state = config.stash[rewrite.assertstate_key]
    for path in _files(config)[number::count]:
        folder = rewrite.get_cache_dir(path)
        compiled = folder / (path.name.removesuffix(".py") + rewrite.PYC_TAIL)
        if rewrite._read_pyc(path, compiled) is None and rewrite.try_makedirs(folder):
            digest, code = rewrite._rewrite_test(path, config)
            rewrite._write_pyc(state, code, digest, compiled)


def _files(config: pytest.Config) -> list[Path]:
    places = [config.invocation_params.dir / each.partition("::")[0] for each in config.args]
    found = {path for place in places for path in (place.rglob("test_*.py") if place.is_dir() else [place])}
    return sorted(found)
