"""What a training stands on, fixed before it begins: data, code, definitions, packages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mainspring.core.time import Clock
from mainspring.data import commits
from mainspring.data.model import DatasetCommit, TableScan
from mainspring.data.ports import LakeTables, Snapshots
from mainspring.features import definitions
from mainspring.registry.bundles import sha256
from mainspring.training import provenance
from mainspring.training.model import Model


@dataclass(frozen=True, slots=True)
class Pinned:
    """The versions of everything that a training reads."""

    commit: DatasetCommit
    code: str  # git commit, `+changed` if files differ; empty outside git
    files: str  # digest of the project's files
    features: bytes  # the definitions, as a bundle carries them
    packages: dict[str, str]

    @property
    def code_version(self) -> str:
        """The git commit, or outside git the digest of the files."""
        return self.code or f"files:{self.files}"

    @property
    def tags(self) -> dict[str, str]:
        """What a run says of it."""
        return {
            "dataset_commit": self.commit.id,
            "code_version": self.code_version,
            "files_digest": self.files,
            "features_digest": sha256(self.features),
            "environment": provenance.environment_summary(self.packages),
        }


def pin(model: Model, lake: LakeTables, snapshots: Snapshots, clock: Clock, root: Path) -> Pinned:
    """Commit the present version of every table and note the code in `root`."""
    return Pinned(
        commits.commit(lake, snapshots, clock, f"train {model.name}"),
        provenance.code_version(root),
        provenance.files_digest(root),
        definitions.dump(model.features, model.observations),
        provenance.environment(),
    )


def pinned_scan(lake: LakeTables, commit: DatasetCommit, table: str) -> TableScan:
    """Return how to read the version of `table` that the commit names.

    Raises:
        NotFound: The commit has no such table: nothing was ever ingested into it.
    """
    return lake.scan(table, commits.version_of(commit, table))
