"""How fast is a project backed up and restored? Beside a copy that is synced and hashed, and beside borg and restic.

Two projects: a lake of large files, and many small files: tables of many versions, files of runs, bundles. Files are in
memory, as they were just written; every side ends with a sync. The floor is `cp`, `sync` and `sha256sum`. Ours and
restic's compare what they restored, read again; borg's does not. Ours migrates and fills a catalog too.

borg and restic are Debian's packages `borgbackup` and `restic`; `tests/servers.sh --bench` installs them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from kit.erased_shop import opened, write
from mainspring.operations.auditing import audit
from mainspring.operations.backup.making import backup, stored_blobs
from mainspring.operations.backup.restoring import restore
from mainspring.project import Project
from report import Case, report

STATE = ".mainspring"
Step = Callable[[], object]
BORG, RESTIC = "borg", "restic"
NEEDED = {BORG: "borgbackup", RESTIC: "restic"}  # command -> Debian's package


def make_large(folder: Path, megabytes: int) -> None:
    """Make a project with a lake of files of 32 MB."""
    project, rng = _made(folder), np.random.default_rng(1)
    for number in range(megabytes // 32):
        batch = pa.record_batch({"a": rng.random(2_000_000), "b": rng.random(2_000_000)})
        project.stored_lake.append("large", [batch], batch.schema, key=str(number))
    project.close()


def make_small(folder: Path, versions: int) -> None:
    """Make a project with small files: a data file and an entry of the log for each version of three tables."""
    project, rng = _made(folder), np.random.default_rng(1)
    for table in ("first", "second", "third"):
        for number in range(versions):
            batch = pa.record_batch({"a": rng.random(500), "b": rng.random(500)})
            project.stored_lake.append(table, [batch], batch.schema, key=str(number))
    draw = random.Random(1).randbytes
    for number in range(versions):
        plot = project.settings.state / "artefacts" / str(number) / "plot.png"
        plot.parent.mkdir(parents=True)
        plot.write_bytes(draw(10_000))
    for number in range(versions // 10):
        files = {"manifest.json": b"{}" * 500, "model.onnx": draw(400_000)}
        stored_blobs(project).put(f"{number:064x}", {**files, **{f"f{each}": draw(20_000) for each in range(6)}})
    project.close()


def _made(folder: Path) -> Project:
    folder.mkdir()
    write(folder)
    project = opened(folder)
    audit(project, "train", "model/late")
    return project


class Sides:
    """Backups and restores of one project, each into a place of its own."""

    def __init__(self, project: Path, place: Path) -> None:
        self._project = project
        self._place = place
        self._environment = {
            **os.environ, "BORG_BASE_DIR": str(place / "borg-base"), "BORG_PASSPHRASE": "pass",
            "RESTIC_PASSWORD": "pass", "RESTIC_CACHE_DIR": str(place / "restic-cache"),
        }  # fmt: skip

    def ours(self) -> tuple[Step, Step]:
        there = self._fresh("ours")
        write(there)

        def back_up() -> None:
            project = opened(self._project)
            backup(project, str(self._place / "repository"))
            project.close()

        def bring_back() -> None:
            shutil.copytree(self._project / STATE / "keys", there / STATE / "keys")
            project = opened(there, restores=True)
            done = restore(project, str(self._place / "repository"))
            project.close()
            wrong = [each for each in done.equality if each.equal != each.of]
            if wrong or done.kept:
                raise RuntimeError(f"The restored project differs: {wrong} {done.kept}")

        self._fresh("repository").rmdir()
        return back_up, bring_back

    def floor(self) -> tuple[Step, Step]:
        first, second = self._fresh("floor-1"), self._fresh("floor-2")

        def copied(source: Path, to: Path) -> None:
            self._run("cp", "-a", str(source), str(to))
            self._run("sync")
            self._run("sh", "-c", f"find {to} -type f -print0 | xargs -0 sha256sum")

        return lambda: copied(self._project / STATE, first), lambda: copied(first / STATE, second)

    def borg(self) -> tuple[Step, Step]:
        repository, there = self._fresh("borg-repository"), self._fresh("borg")
        self._run(BORG, "init", "--encryption", "repokey-blake2", str(repository))
        return (
            lambda: self._run(BORG, "create", "--compression", "lz4", f"{repository}::one", STATE, at=self._project),
            lambda: self._run(BORG, "extract", f"{repository}::one", at=there),
        )

    def restic(self) -> tuple[Step, Step]:
        repository, there = str(self._fresh("restic-repository")), str(self._fresh("restic"))
        self._run(RESTIC, "init", "--repo", repository)
        return (
            lambda: self._run(RESTIC, "backup", "--repo", repository, STATE, at=self._project),
            lambda: self._run(RESTIC, "restore", "latest", "--verify", "--repo", repository, "--target", there),
        )

    def _run(self, *command: str, at: Path | None = None) -> None:
        subprocess.run(command, cwd=at, env=self._environment, check=True, capture_output=True)

    def _fresh(self, name: str) -> Path:
        folder = self._place / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def timed(step: Step) -> float:
    subprocess.run(["sync"], check=True)  # of what the turn before wrote
    began = time.perf_counter()
    step()
    subprocess.run(["sync"], check=True)
    return time.perf_counter() - began


def measure(name: str, project: Path, place: Path, turns: int) -> list[Case]:
    sides = Sides(project, place)
    missing = {
        peer: f"not installed: run `apt-get install {NEEDED[peer]}`" for peer in NEEDED if not shutil.which(peer)
    }
    steps = {"ours": sides.ours, "floor": sides.floor, BORG: sides.borg, RESTIC: sides.restic}
    taken: dict[str, list[tuple[float, float]]] = {each: [] for each in steps if each not in missing}
    for _ in range(turns):
        for each, seconds in taken.items():
            back_up, bring_back = steps[each]()
            seconds.append((timed(back_up), timed(bring_back)))
    size = sum(each.stat().st_size for each in (project / STATE).rglob("*") if each.is_file())
    files = sum(each.is_file() for each in (project / STATE).rglob("*"))
    cases = []
    for number, what in enumerate(("backup", "restore")):
        found = {each: round(statistics.median(turn[number] for turn in of), 2) for each, of in taken.items()}
        peers = {peer: found.get(peer) for peer in NEEDED}
        told = {name: f"{files:,} files, {size / 1e6:,.0f} MB", **missing}
        cases.append(Case(f"{name}, {what}", "s", found["ours"], found["floor"], peers, told))
    return cases


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brief", action="store_true", help="one turn, of small projects")
    brief = parser.parse_args(arguments).brief
    turns = 1 if brief else 3
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_large(place / "large", 64 if brief else 512)
        cases = measure("large files", place / "large", place / "there", turns)
        shutil.rmtree(place / "there")
        make_small(place / "small", 20 if brief else 300)
        report("backup", [*cases, *measure("small files", place / "small", place / "there", turns)])


if __name__ == "__main__":
    main()
