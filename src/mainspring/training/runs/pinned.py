"""What a training stands on, fixed before it begins: data, code, definitions, packages."""

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

ENVIRONMENT, CODE_DIFF, DEFINITIONS = "environment.json", "code.diff", "definitions.json"  # files of a run
NO_DIFF = "code_diff"  # a tag: why there is no `code.diff`
CODE_CHANGED = "code_changed"  # a tag: which files are not as they were imported


@dataclass(frozen=True, slots=True)
class Pinned:
    """The versions of everything that a training reads."""

    commit: DatasetCommit
    code: str  # git commit, `+changed` if files differ; empty outside git
    files: str  # digest of the project's files
    features: bytes  # the definitions, as a bundle carries them
    packages: dict[str, str]
    diff: bytes = b""  # from the git commit to the files as they were
    no_diff: str = ""  # why it is not kept

    @property
    def code_version(self) -> str:
        """The git commit, or outside git the digest of the files."""
        return self.code or f"files:{self.files}"

    @property
    def files_of_run(self) -> dict[str, bytes]:
        """What a run keeps of it as files."""
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
        """What a run says of it."""
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
    """Commit the present version of every table, or take `commit`, and note the code in `root`."""
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
    except Invalid as error:  # it can be trained, only not from git alone
        return b"", str(error)


def pinned_scan(lake: LakeTables, commit: DatasetCommit, table: str) -> TableScan:
    """Return how to read the version of `table` that the commit names.

    Raises:
        NotFound: The commit has no such table: nothing was ever ingested into it.
    """
    return lake.scan(table, commits.version_of(commit, table))
