"""Inputs of a training, pinned before it begins: data, code, definitions, packages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from mainspring.core.errors import Invalid
from mainspring.core.time import Clock
from mainspring.data import commits
from mainspring.data.model import DatasetCommit, TableScan
from mainspring.data.ports import LakeTables, Snapshots
from mainspring.features import definitions
from mainspring.registry.bundles import sha256
from mainspring.training.model import Model
from mainspring.training.runs import provenance

ENVIRONMENT, CODE_DIFF, DEFINITIONS = "environment.json", "code.diff", "definitions.json"  # artefacts of a run
NO_DIFF = "code_diff"  # tag: reason for a missing `code.diff`
CODE_CHANGED = "code_changed"  # tag: files that changed after they were imported


@dataclass(frozen=True, slots=True)
class Pinned:
    """Pinned versions of everything that a training reads."""

    commit: DatasetCommit
    code: str  # git commit, `+changed` if files differ; empty outside git
    files: str  # digest of the project's files
    features: bytes  # the definitions, encoded as in a bundle
    packages: dict[str, str]
    diff: bytes = b""  # changes since the git commit
    no_diff: str = ""  # reason for a missing diff

    @property
    def code_version(self) -> str:
        """The git commit, or the digest of the files outside git."""
        return self.code or f"files:{self.files}"

    @property
    def files_of_run(self) -> dict[str, bytes]:
        """The artefacts that a run stores: environment, definitions, and the diff if there is one."""
        packages = {name: version for name, version in self.packages.items() if name != "python"}
        environment = {
            "python": self.packages.get("python", ""),
            **provenance.machine(),
            "mainspring_files": provenance.package_digest(),
            "packages": packages,
        }
        kept = {
            ENVIRONMENT: msgspec.json.format(msgspec.json.encode(environment), indent=1),
            DEFINITIONS: self.features,
        }
        return {**kept, CODE_DIFF: self.diff} if self.diff else kept

    @property
    def tags(self) -> dict[str, str]:
        """The tags that a run stores."""
        missing = {NO_DIFF: self.no_diff} if self.no_diff else {}
        return {
            **missing,
            "dataset_commit": self.commit.id,
            "code_version": self.code_version,
            "files_digest": self.files,
            "features_digest": sha256(self.features),
            "environment": provenance.environment_summary(self.packages),
        }


def pin(
    model: Model,
    lake: LakeTables,
    snapshots: Snapshots,
    clock: Clock,
    root: Path,
    *,
    commit: DatasetCommit | None = None,
) -> Pinned:
    """Commit the current version of every table, or take `commit`, and record the code in `root`."""
    return Pinned(
        commit or commits.commit(lake, snapshots, clock, f"train {model.name}"),
        provenance.code_version(root),
        provenance.files_digest(root),
        definitions.dump(model.features, model.observations),
        provenance.environment(),
        *_diff(root),
    )


def _diff(root: Path) -> tuple[bytes, str]:
    try:
        return provenance.code_diff(root), ""
    except Invalid as error:  # training is possible, but not reproducible from git alone
        return b"", str(error)


def pinned_scan(lake: LakeTables, commit: DatasetCommit, table: str) -> TableScan:
    """Return a scan of `table` at the version that the commit names.

    Raises:
        NotFound: The commit lacks the table: it was never ingested into.
    """
    return lake.scan(table, commits.version_of(commit, table))
