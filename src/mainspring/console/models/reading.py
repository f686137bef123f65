"""Costly facts of a version, computed in a thread: the integrity of its bundle, and its card."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from mainspring.console.background_cache import Looking
from mainspring.console.features.values import Seen
from mainspring.core.errors import MainspringError, Overloaded
from mainspring.core.time import MINUTE
from mainspring.delivery.model import GateResult
from mainspring.governance.model import Card
from mainspring.operations.models.cards import card_of, stamp
from mainspring.operations.models.evaluation import VersionEvaluation, champion_beside, evaluate_version
from mainspring.operations.promote import judged
from mainspring.project import Project
from mainspring.registry.model import Manifest, ModelVersion

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_KEPT_US = 10 * MINUTE  # how long the verification of a bundle stays valid


@dataclass(frozen=True, slots=True)
class Verified:
    """A bundle that was intact when it was read, without its bytes."""

    manifest: Manifest
    sizes: Mapping[str, int]  # file -> bytes
    signature: str  # Ed25519, hex
    at: int  # when it was verified, UTC epoch microseconds


def verified(project: Project, looking: Looking, version: ModelVersion) -> Seen[Verified]:
    """Return a version's verified bundle. A result is kept for ten minutes, then verified again on demand."""

    def read() -> Verified:
        bundle = project.bundles.load(version.digest)
        sizes = {name: len(bundle.files[name]) for name in sorted(bundle.files)}
        return Verified(bundle.manifest, sizes, bundle.signature.hex(), project.wall.now())

    return _seen(looking, ("bundle", version.digest, project.wall.now() // _KEPT_US), read)


def carded(project: Project, looking: Looking, version: ModelVersion, wait_s: float | None = None) -> Seen[Card]:
    """Return a version's card. This verifies its bundle and scores its held-out rows, so it may take a while."""

    return _seen(
        looking, ("card", stamp(project, version)), lambda: _scored(version, lambda: card_of(project, version)), wait_s
    )


def evaluated(
    project: Project, looking: Looking, version: ModelVersion, wait_s: float | None = None
) -> Seen[VersionEvaluation]:
    """Return a version's evaluation beside the current champion. This scores its held-out rows, too."""
    champion = champion_beside(project, version)
    key = "evaluation", version.digest, None if champion is None else champion.digest
    return _seen(looking, key, lambda: _scored(version, lambda: evaluate_version(project, version)), wait_s)


def judged_gates(project: Project, looking: Looking, version: ModelVersion) -> Seen[tuple[GateResult, ...]]:
    """Return the results of a version's gates now. This scores its held-out rows beside the champion's.

    Of a chain of answers they are those of the last evaluation: to look at a page asks no language model.
    """
    if version.model in project.definitions.answers:
        stored = project.evaluations.newest(version.model, version.version)
        return Seen(True, stored[0].results if stored else (), None)
    champion = champion_beside(project, version)
    key = (
        "gates",
        version.digest,
        None if champion is None else champion.digest,
        tuple(map(str, project.definitions.gates_of(version.model))),
        tuple(project.approvals.of(version.model, version.version)),
        tuple(project.waivers.of(version.model, version.version)),
        project.wall.now() // _KEPT_US,  # a waiver ends, a latency changes
    )
    return _seen(looking, key, lambda: _scored(version, lambda: judged(project, version)))


def _scored(version: ModelVersion, make: Callable[[], _T]) -> _T:
    try:
        return make()
    except MainspringError:
        raise
    except Exception as error:  # a model may be arbitrary code: no error of it may break the page
        name = f"{version.model}:{version.version}"
        _log.exception("the held-out rows of %s", name)
        what = f"The model {name} cannot be scored: {type(error).__name__}: {str(error)[:300]}."
        raise MainspringError(what, fix=f"try `mainspring models card {name}`.") from error


def _seen(looking: Looking, key: Hashable, make: Callable[[], _T], wait_s: float | None = None) -> Seen[_T]:
    try:
        ready, found = looking.at(key, make, wait_s)
    except Overloaded:
        return Seen(False, None, None)
    except MainspringError as error:
        return Seen.failed(error)
    return Seen(ready, found, None)
