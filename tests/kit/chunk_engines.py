"""A project that workers can open by its folder, and a chunk engine of threads."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from kit import scoring
from mainspring.project import open_project
from mainspring.project.settings import load_settings
from mainspring.serving.batch.plan import shares

TOML = 'name = "parcels"\nmodules = ["parcels_sources"]\n\n[profiles.local]\n'
SOURCES = "from kit.scoring import posted, scans\n"


def opened_at(root: Path) -> Any:
    """Return a project on disk with both models of `kit.scoring`; opened again it is the same."""
    new = not (root / "mainspring.toml").exists()
    if new:
        root.mkdir(parents=True, exist_ok=True)
        (root / "mainspring.toml").write_text(TOML)
        (root / "parcels_sources.py").write_text(SOURCES)
    project = open_project(load_settings(root))
    if new:
        scoring.land(project, scoring.scan_rows())
        for model in (scoring.FEATURES, scoring.NETWORK):
            scoring.add_version(project, model)
    return project


class ThreadChunks:
    """`ChunkEngine` of two threads, each with projects of its own."""

    def run(self, entry: str, request: str, chunks: Sequence[int], per_worker: int) -> Generator[list[str], None, None]:
        answers = import_module(entry).answers

        with ThreadPoolExecutor(2) as pool:
            yield from pool.map(lambda part: list(answers(request, part)), shares(chunks, 2 * per_worker))
