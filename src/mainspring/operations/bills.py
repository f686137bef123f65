"""Bills of materials: of this environment, and of a version, signed by the project's key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import msgspec

from mainspring.core.errors import NotFound
from mainspring.governance import bom
from mainspring.governance.bom import Package
from mainspring.operations.models import cards, curating
from mainspring.project import Project

_ROOT = "mainspring"
_LICENSES = "License :: OSI Approved :: "


def software_bill(project: Project) -> dict[str, Any]:
    """Return the bill of the software that this process could import. Raises as `bom.software` does."""
    return bom.signed(bom.software(installed(), _ROOT, at=project.wall.now()), project.signing_key)


def version_bill(project: Project, reference: str) -> dict[str, Any]:
    """Return the bill of the version `NAME:VERSION`, `NAME@ALIAS` or `NAME`. Raises as `cards.card` does.

    Its bundle is verified and its held-out rows are scored. The software is that of its training, as the run recorded
    it; a version without a run has none.
    """
    version = curating.find(project, reference)
    shown = curating.show(project, f"{version.model}:{version.version}")
    document = bom.model(
        project.bundles.load(version.digest).manifest,
        shown.lineage,
        cards.card_of(project, version),
        tables=cards.tables_of(project, shown.lineage.dataset_commit) or {},
        packages=_trained_with(project, version.run_id),
    )
    return bom.signed(document, project.signing_key)


def installed() -> Iterator[Package]:
    seen = set()
    for found in metadata.distributions():
        about = found.metadata
        name = about["Name"]
        if not name or bom.normalised(name) in seen:  # the first on the path is imported
            continue
        seen.add(bom.normalised(name))
        needed = bom.required(found.requires or (), extras=name == _ROOT)
        yield Package(name, found.version, _license(about), needed)


def _license(about: Any) -> str:
    plain = about.get("License-Expression") or about.get("License") or ""
    if plain and "\n" not in plain and len(plain) < 100 and plain != "UNKNOWN":
        return str(plain)
    named = [each.removeprefix(_LICENSES) for each in about.get_all("Classifier") or () if each.startswith(_LICENSES)]
    return ", ".join(named)


def _trained_with(project: Project, run_id: str) -> list[Package]:
    try:
        content = project.tracking.artefact(run_id, "environment.json") if run_id else b"{}"
    except NotFound:
        return []
    recorded: Mapping[str, Any] = msgspec.json.decode(content)
    return [Package(name, version) for name, version in recorded.get("packages", {}).items() if version]
