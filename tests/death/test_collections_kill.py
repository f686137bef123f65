"""Builds of a collection are killed at their writes: documents stay whole, the next build ends what is left."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from death import collections_victim
from kit import prefork
from kit.collected import BODY
from kit.depth import examples
from kit.encoders import WordEncoder

Documents = dict[str, list[str]]


def landed(folder: Path) -> tuple[Documents, Documents, Documents]:
    """Make a collection and change its pages; return it as built, as a build makes it, and with another chunker."""
    made = []
    before = [{"path": f"p{n}", "body": f"{BODY}\n## More\n\nPage {n} of it."} for n in range(6)]
    after = [{"path": "p0", "void": True}, {"path": "p1", "body": "Short now."}, {"path": "p9", "body": BODY}]
    for place, changed in ((folder / "same", False), (folder / "other", True)):
        desk = collections_victim.desk_of(place)
        desk.land(*before)
        desk.build(WordEncoder())
        made.append(desk.documents())
        desk.land(*after)
        shutil.copytree(place, place.with_name(f"{place.name}-start"))
        desk.build(WordEncoder(), collections_victim.declared(changed))
        made.append(desk.documents())
        desk.engine.dispose()
    return made[0], made[1], made[3]


def built(folder: Path, step: int, changed: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        prefork.script(Path(collections_victim.__file__), folder, step, int(changed)),
        capture_output=True, text=True, timeout=400, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("changed", [False, True])
def test_a_killed_build_never_shows_half_and_is_ended(tmp_path: Path, changed: bool) -> None:
    old, same, other = landed(tmp_path)
    new, start = (other, "other-start") if changed else (same, "same-start")
    shutil.copytree(tmp_path / start, tmp_path / "whole")
    writes = int(built(tmp_path / "whole", 0, changed).stdout)
    assert writes > 8
    steps = range(1, writes + 1)
    for step in random.Random(5).sample(steps, examples(gate=2, deep=writes)):
        folder = tmp_path / f"killed-{step}"
        shutil.copytree(tmp_path / start, folder)
        assert built(folder, step, changed).returncode == -9
        desk = collections_victim.desk_of(folder)
        seen = desk.documents()
        if changed:
            assert seen in (old, new), step
        else:  # a changed document is there as it was, as it is, or as both, and always whole
            for name, parts in seen.items():
                was, is_ = old.get(name, []), new.get(name, [])
                assert sorted(parts) in (sorted(was), sorted(is_), sorted(was + is_)), (step, name)
            assert seen.keys() >= old.keys() & new.keys()
        desk.build(WordEncoder(), collections_victim.declared(changed))
        assert desk.documents() == new
        assert len(desk.store.names()) == 1
        desk.engine.dispose()
