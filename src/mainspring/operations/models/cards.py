"""Model cards of versions, with the project's own text on the model."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.core.files import write_atomic
from mainspring.core.ids import check_id
from mainspring.delivery.waiving import said
from mainspring.governance.cards import build
from mainspring.governance.model import Attention, Card, Gap
from mainspring.governance.resources import Price
from mainspring.operations.explaining import explain_version
from mainspring.operations.models import curating
from mainspring.operations.models.waiving import active
from mainspring.project import Project
from mainspring.project.executors import executors
from mainspring.registry.bundles import FEATURES, HOLDOUT
from mainspring.registry.lineage import lineage_of
from mainspring.registry.model import Bundle, ModelVersion, RunRecord
from mainspring.serving.explanation import MEANINGS

FOLDER = "cards"  # folder in the project: one Markdown file per model
IMPORTANCE = "Importance"
_LARGEST_WORDS = 1_000_000  # bytes
_ATTENTION_ROWS = 500


def card(project: Project, reference: str) -> Card:
    """Return the card of the version `NAME:VERSION`, `NAME@ALIAS` or `NAME`. This verifies its bundle and scores its
    held-out rows.

    Raises:
        NotFound: There is no such version, or its bundle no longer exists.
        Corrupt: Its bundle is damaged.
        Invalid: The project's text file is not text, or too large.
    """
    return card_of(project, curating.find(project, reference))


def card_of(project: Project, version: ModelVersion) -> Card:
    """Return the card of a version. Raises as `card` does."""
    bundle = project.bundles.load(version.digest)
    run = _run(project, version.run_id)
    name = words_file(version.model)
    price = project.settings.training_price
    declared = project.definitions.models.get(version.model)
    return build(
        bundle,
        lineage_of(version, bundle.manifest, run, project.versions.all()),
        run=run,
        history=lambda metric: project.tracking.history(version.run_id, metric),
        tables=tables_of(project, bundle.manifest.dataset_commit),
        words=_words(project, name),
        words_file=name,
        hidden=personal(bundle),
        price=None if price is None else Price(*price),
        description="" if declared is None else declared.description,
        owner="" if declared is None else declared.owner,
        metrics=() if declared is None else declared.measured,
        waivers=[f"{each.gate}, by {said(each)}" for each in active(project, version)],
        **_fairness(project, version),
        attention=_attention(project, version, bundle),
    )


def _fairness(project: Project, version: ModelVersion) -> dict[str, Any]:
    """Return the groups of the held-out rows, or why they could not be measured; nothing where none are declared."""
    from mainspring.operations.fairness import declared_groups, held_out_fairness

    if not declared_groups(project, version.model):
        return {}
    try:
        found = held_out_fairness(project, version)
    except MainspringError as error:
        return {"unfair": Gap("Fairness", error.what, error.fix or "", required=False)}
    return {"fairness": [report for each in found.versions for report in each.reports]}


def _attention(project: Project, version: ModelVersion, bundle: Bundle) -> Attention | Gap:
    """Return the importance of the version's columns on its held-out rows, or why it is unknown."""
    if bundle.manifest.tensors:
        return Gap(IMPORTANCE, "A model of tensors has no columns.", "none is needed.", required=False)
    if HOLDOUT not in bundle.files:  # so that no model runs in vain, and no code of the project
        return Gap(IMPORTANCE, "The bundle contains no held-out rows.", "train the model with a label.", required=False)
    try:
        executor = executors(project)(bundle)
    except MainspringError as error:
        return Gap(IMPORTANCE, error.what, error.fix or "", required=False)
    try:
        found = explain_version(version, bundle, executor, rows=_ATTENTION_ROWS, columns=[])
    except MainspringError as error:
        return Gap(IMPORTANCE, error.what, error.fix or "", required=False)
    finally:
        executor.close()
    method = (
        f"{found.rows:,} held-out rows, 95 % intervals. Error without it: the increase of the squared error when the "
        "input's values are permuted."
    )
    if found.method is not None:
        method += f" Moves: the mean absolute contribution, in {MEANINGS[found.method.space]}."
    return Attention(tuple(found.importances), method)


def words_file(model: str) -> str:
    """Return the path of the project's own text on a model."""
    return f"{FOLDER}/{check_id(model, 'model')}.md"


def stamp(project: Project, version: ModelVersion) -> Hashable:
    """Return the cache key of a card, which is cheap and unchanged while the card would be the same."""
    try:
        words = (project.settings.root / words_file(version.model)).stat()
    except OSError:
        written = None
    else:
        written = words.st_mtime_ns, words.st_size
    from mainspring.operations.fairness import declared_groups

    declared = project.definitions.models.get(version.model)
    said = None if declared is None else (declared.description, declared.owner, declared.metric_names)
    where = version.model, version.version, version.digest, version.aliases
    waivers = tuple((each.gate, each.until) for each in active(project, version))
    groups = declared_groups(project, version.model)
    return *where, waivers, groups, tuple(sorted(version.tags.items())), written, said, project.settings.training_price


def document(found: Card) -> dict[str, Any]:
    """Return a card for a JSON document."""
    return {**asdict(found), "complete": found.complete}


def render(found: Card, kind: str) -> str:
    """Return a card as `md`, `html` or `json`."""
    import json

    from mainspring.governance.page import page
    from mainspring.governance.rendering import markdown

    if kind == "json":
        return json.dumps(document(found), indent=2, ensure_ascii=False) + "\n"
    return page(found) if kind == "html" else markdown(found)


def write(path: Path, content: str) -> None:
    """Write a card to a file, completely or not at all.

    Raises:
        NotFound: There is no such folder.
        StorageFull: No space.
    """
    if not path.absolute().parent.is_dir():
        raise NotFound(f"There is no folder {path.parent}.", fix="create the folder first.")
    write_atomic(path, content.encode(), mode=0o644)


def _run(project: Project, run_id: str) -> RunRecord | None:
    try:
        return project.tracking.get(run_id)
    except NotFound:
        return None


def tables_of(project: Project, commit: str) -> dict[str, int] | None:
    """Return the tables of a dataset commit with their versions, `None` if it is unknown here."""
    if not commit:
        return None
    try:
        return dict(project.snapshots.get(commit).versions)
    except NotFound:
        return None


def _words(project: Project, name: str) -> str:
    path = project.settings.root / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Invalid(f"{name} cannot be read: {error.strerror}.", fix="make it a readable file.") from None
    if len(content) > _LARGEST_WORDS:
        raise Invalid(f"{name} has {len(content):,} bytes.", fix=f"keep it under {_LARGEST_WORDS:,}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid(f"{name} is not UTF-8.", fix="save it as UTF-8.") from None


def personal(bundle: Bundle) -> frozenset[str]:
    """Return the bundle's features whose values identify a person."""
    if FEATURES not in bundle.files:
        return frozenset()
    from mainspring.features.definitions import load
    from mainspring.features.describe.personal import personal_names

    return personal_names(*load(bundle.files[FEATURES]))
