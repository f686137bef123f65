"""Lineage of a version: its run, data, features, code, author, and the versions that it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mainspring.registry.model import Manifest, ModelVersion, RunRecord
from mainspring.registry.processes import PERSON, STARTER, USER

AUTHOR = "author"  # a version's tag, for a version whose run does not name its author
ORIGINAL_AUTHOR = "imported.author"
SIGNER = "imported.from"  # a tag of an import's run
BASE = "base"  # a version's tag: the digest of the weights that an adapter was trained on, which is no bundle
PARENT = "parent"  # a version's tag: the digest of the bundle that it was made from
VARIANT = "optimised"  # a version's tag: the variant of its parent that it is


class Ancestor(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that a version was made from. `version` is `NAME:VERSION`, empty if no version has the bundle now."""

    role: str  # parent, base (of an adapter, whose digest is no bundle's), or node NAME
    digest: str
    version: str = ""

    @property
    def described(self) -> str:
        """Version and digest, as text."""
        return (
            f"weights {self.digest}"
            if self.role == BASE
            else f"{self.version or 'no version now'}, bundle {self.digest}"
        )


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Everything known about a version's origin; unknown fields are empty."""

    model: str
    version: str
    digest: str
    aliases: tuple[str, ...]
    created_at: int  # UTC epoch microseconds
    authors: tuple[str, ...]
    flavour: str
    task: str
    run_id: str
    run_status: str  # empty where the run is not in this installation's store
    dataset_commit: str
    features_digest: str
    code_version: str
    ancestors: tuple[Ancestor, ...]
    metrics: dict[str, float]
    tags: dict[str, str]


def authors_of(version: ModelVersion, run: RunRecord | None) -> tuple[str, ...]:
    """Return the authors of a version: who was signed in at the training or command, or else the user of the machine;
    who started the pipeline that trained it; and for an import also the original authors, as `from:SIGNER:NAME`.

    Empty for versions made before authors were recorded.
    """
    tags = {} if run is None else run.tags
    who = version.tags.get(AUTHOR) or tags.get(PERSON) or tags.get(USER, "")
    names = (who, tags.get(STARTER, ""), *_original(version.tags.get(ORIGINAL_AUTHOR, ""), tags.get(SIGNER, "")))
    return tuple(dict.fromkeys(name for name in names if name))


def _original(written: str, signer: str) -> list[str]:
    if written.startswith("["):
        return msgspec.json.decode(written, type=list[str])
    return [f"from:{signer}:{name}" for name in written.split(", ") if name]  # as imports were recorded before


def lineage_of(
    version: ModelVersion, manifest: Manifest, run: RunRecord | None, others: Sequence[ModelVersion]
) -> Lineage:
    """Return the lineage of a version.

    Args:
        manifest: Manifest of the version's bundle.
        run: `None` if the run is not in this installation's store.
        others: The versions of all models, to name the ancestors.
    """
    names = {other.digest: f"{other.model}:{other.version}" for other in others}
    return Lineage(
        model=version.model,
        version=version.version,
        digest=version.digest,
        aliases=version.aliases,
        created_at=version.created_at,
        authors=authors_of(version, run),
        flavour=manifest.flavour,
        task=manifest.task,
        run_id=version.run_id,
        run_status="" if run is None else run.status,
        dataset_commit=manifest.dataset_commit,
        features_digest=manifest.features_digest,
        code_version=manifest.code_version,
        ancestors=tuple(_ancestors(version, manifest, names)),
        metrics=dict(manifest.metrics),
        tags=dict(version.tags),
    )


def _ancestors(version: ModelVersion, manifest: Manifest, names: Mapping[str, str]) -> list[Ancestor]:
    found = []
    if parent := version.tags.get(PARENT):
        found.append(Ancestor(role="parent", digest=parent, version=names.get(parent, "")))
    if base := version.tags.get(BASE):
        found.append(Ancestor(role=BASE, digest=base))
    for node in () if manifest.graph is None else manifest.graph.nodes:
        if node.bundle:
            role = f"node {node.name}"
            found.append(Ancestor(role=role, digest=node.bundle, version=names.get(node.bundle, "")))
    return found
