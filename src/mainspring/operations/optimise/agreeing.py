"""A version of tensors, or an encoder: it has no labels, so a variant is judged by how well it agrees with it.

An encoder's variant is judged by the neighbours of texts: of the ten texts that are nearest to each by the version's
vectors, the share that is among the ten by the variant's. Any other model's by the share of the variance of the
version's answers that the variant's give, R². Bounds are those of a jackknife over runs of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mainspring.core.errors import Invalid, NotConvertible, NotFound
from mainspring.deploy.edge.golden import recorded_rows, worst_difference
from mainspring.operations.models.adding import Made, read_golden, register
from mainspring.operations.optimise.measuring import answers_of, apart_of
from mainspring.operations.optimise.model import MADE, Quality
from mainspring.operations.optimise.subject import Judged, Progress, Wish
from mainspring.project import Project
from mainspring.project.backends.retrieval import registered_encoder
from mainspring.registry.bundles import GOLDEN, MODEL, TOKENIZER, sha256
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.serving.plane.executor import tensor
from mainspring.stats.jackknife import Floats, Ints, estimate, mean_without
from mainspring.training.frames import Array
from mainspring.training.optimise.variants import Variant
from mainspring.vectors.chunk_table import StoredChunks
from mainspring.vectors.encoder_files import golden_of

NEIGHBOURS = 10
_SURE = 0.95
_RUNS = 20  # of rows, that count as independent
_MOST_TEXTS, _FEWEST_TEXTS = 300, 50
_CALIBRATED = 4  # every such row calibrates
_FEWEST_CALIBRATED = 10
_ALONE = 64


class Agreeing:
    """`Subject` of tensors.

    Args:
        base: The version in ONNX.
        rows: File of golden rows, as `models add` takes them; by default the version's own.
    """

    def __init__(self, project: Project, base: Bundle, rows: Path | None) -> None:
        self._project, self._base = project, base
        manifest = base.manifest
        inputs = recorded_rows(base)[0] if rows is None else read_golden(rows)["inputs"]
        missing = [each.name for each in manifest.tensors if each.name not in inputs]
        if missing:
            raise Invalid(
                f"The rows lack the inputs {', '.join(missing)}.", fix="give each, as `models add` takes them."
            )
        count = len(inputs[manifest.tensors[0].name])
        if not count:
            raise Invalid("There are no rows by which variants could be judged.", fix="give some, by --rows.")
        given = {each.name: tensor(inputs[each.name], each, count, nullable=True) for each in manifest.tensors}
        calibrates = np.arange(count) % _CALIBRATED == _CALIBRATED - 1
        if count < _CALIBRATED * _FEWEST_CALIBRATED:
            calibrates[:] = False
        self._calibration = {name: values[calibrates] for name, values in given.items()}
        self._given = {name: values[~calibrates] for name, values in given.items()}
        self.metric = "r2", True
        self.rows = int((~calibrates).sum())
        made = rows is None and str(manifest.extra.get("golden", "")).startswith("seed")
        self.judged_on = f"{self.rows:,} {'random golden' if made else 'golden' if rows is None else 'given'} rows"

    def calibration(self) -> Mapping[str, Array]:
        if not len(next(iter(self._calibration.values()))):
            raise NotConvertible(
                f"Scales are calibrated on rows that do not judge: {_CALIBRATED * _FEWEST_CALIBRATED} or more are "
                "needed; give --rows."
            )
        return self._calibration

    def trained(self, _wish: Wish, _tell: Progress, /) -> Iterator[Variant]:
        yield from ()

    def judged(self, bundle: Bundle) -> Judged:
        theirs, ours = self._theirs, answers_of(self._project, bundle, self._given, self.rows)
        block = _runs(self.rows)
        losses = unexplained(squared_errors(theirs, ours), theirs, block)
        return Judged(_quality(losses, block), worst_difference(ours, theirs))

    def apart(self, bundle: Bundle) -> float:
        few = {name: values[:_ALONE] for name, values in self._given.items()}
        return apart_of(self._project, bundle, few, len(next(iter(few.values()))))

    def register(self, variant: Bundle, made: Mapping[str, Any], origin: Mapping[str, str]) -> ModelVersion:
        return _register(self._project, self._base, variant, made, origin)

    @cached_property
    def _theirs(self) -> Array:
        return answers_of(self._project, self._base, self._given, self.rows)


class Encoding:
    """`Subject` of texts.

    Args:
        base: The encoder.
        rows: File of texts, one a line; by default the chunks of collections that were built with the encoder.
    """

    def __init__(self, project: Project, base: Bundle, rows: Path | None) -> None:
        self._project, self._base = project, base
        texts = _chunks(project, base.digest) if rows is None else _lines(rows)
        if len(texts) < _FEWEST_TEXTS:
            raise Invalid(
                f"There are {len(texts)} texts by which variants of the encoder could be judged, and {_FEWEST_TEXTS} "
                "are needed.",
                fix="give texts such as it will encode, one a line: --rows texts.txt.",
            )
        place = np.arange(len(texts))
        calibrates = place % _CALIBRATED == _CALIBRATED - 1
        self._texts = [texts[each] for each in place[~calibrates]]
        self._others = [texts[each] for each in place[calibrates]]
        self.metric = f"neighbours-{NEIGHBOURS}", True
        self.rows = len(self._texts)
        self.judged_on = f"{self.rows:,} {'texts of collections' if rows is None else 'given texts'}"

    def calibration(self) -> Mapping[str, Array]:
        return _tokens(self._base, self._others)

    def trained(self, _wish: Wish, _tell: Progress, /) -> Iterator[Variant]:
        yield from ()

    def judged(self, bundle: Bundle) -> Judged:
        theirs, ours = self._theirs, self._vectors(bundle)
        shared = neighbours_shared(theirs, ours)
        block = _runs(self.rows)
        losses = 1 - mean_without(shared, np.ones(self.rows), block)
        cosine = float((theirs * ours).sum(axis=1).mean())
        return Judged(_quality(losses, block), worst_difference(ours, theirs), cosine=cosine)

    def apart(self, bundle: Bundle) -> float:
        """Rows of one length: an encoder takes each text alone, and other callers send them together."""
        rows = _tokens(self._base, self._texts[:_ALONE])
        shortest = int(rows["attention_mask"].sum(axis=1).min())
        few = {name: values[:, :shortest] for name, values in rows.items()}
        return apart_of(self._project, bundle, few, len(next(iter(few.values()))))

    def register(self, variant: Bundle, made: Mapping[str, Any], origin: Mapping[str, str]) -> ModelVersion:
        return _register(self._project, self._base, variant, made, origin)

    @cached_property
    def _theirs(self) -> Floats:
        return self._vectors(self._base)

    def _vectors(self, bundle: Bundle) -> Floats:
        return of_length_one(registered_encoder(bundle, bundle.manifest.model).encode(self._texts))


def _register(
    project: Project, base: Bundle, variant: Bundle, made: Mapping[str, Any], origin: Mapping[str, str]
) -> ModelVersion:
    """Register a variant with the golden rows of its parent, which it answers in a process of its own."""
    files = {name: content for name, content in variant.files.items() if name != GOLDEN}
    manifest = variant.manifest
    fields = {
        "extra": {**manifest.extra, "sha256": sha256(files[MODEL]), MADE: made},
        "tolerance": max(manifest.tolerance, float(made["largest_difference"] or 0.0)),
    }
    golden = {"inputs": recorded_rows(base)[0], "outputs": {}}
    added = register(project, manifest.model, Made("onnx", files, fields, origin, golden), None)
    return project.versions.get(manifest.model, added.version)


def neighbours_shared(theirs: Floats, ours: Floats, count: int = NEIGHBOURS) -> Floats:
    """Return for each vector the share of its `count` nearest others that both sides have, by the cosine.

    Args:
        theirs, ours: Vectors of length 1, shape (rows, dimension).
    """
    near = []
    for vectors in (theirs, ours):
        alike = vectors @ vectors.T
        np.fill_diagonal(alike, -np.inf)
        near.append(np.argsort(-alike, axis=1, kind="stable")[:, :count])
    both = (near[0][:, :, None] == near[1][:, None, :]).any(axis=2)
    return np.asarray(both.mean(axis=1), np.float64)


def of_length_one(vectors: Any) -> Floats:
    """Return vectors, shape (rows, dimension), each over its length.

    Raises:
        NotConvertible: A vector is not finite: no neighbour of it is known.
    """
    found = np.asarray(vectors, np.float64)
    if odd := int((~np.isfinite(found)).any(axis=1).sum()):
        raise NotConvertible(f"The vectors of {odd:,} of {len(found):,} texts are not finite.")
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(lengths, np.finfo(np.float64).tiny))


def squared_errors(theirs: Array, ours: Array) -> Array:
    """Return the squared error of each row, shape (rows,); none where both sides are NaN.

    Raises:
        NotConvertible: An error is not finite: it would pass for no loss.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        errors = (np.where(np.isnan(ours) & np.isnan(theirs), 0.0, ours - theirs) ** 2).sum(axis=1)
    if odd := int((~np.isfinite(errors)).sum()):
        raise NotConvertible(f"In {odd:,} of {len(errors):,} rows its answers are not finite, or far off.")
    return np.asarray(errors)


def unexplained(errors: Array, theirs: Array, block: Ints) -> Floats:
    """Return 1 - R² of all rows, then without each block.

    Args:
        errors: Squared, shape (rows,).
        theirs: Answers of the version, shape (rows, values); NaN is none.

    Raises:
        NotConvertible: The version's answers do not vary, and the variant's are others.
    """
    there = ~np.isnan(theirs)
    means = np.where(there, theirs, 0.0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)
    spread = (np.where(there, theirs - means, 0.0) ** 2).sum(axis=1)
    ones = np.ones(len(errors))
    above, below = mean_without(errors, ones, block), mean_without(spread, ones, block)
    if above[0] > 0 and below[0] == 0:
        raise NotConvertible("The version gives the same answer to all rows, and the variant another one.")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(above == 0, 0.0, above / below))


def _quality(losses: Floats, block: Ints) -> Quality:
    """Return the quality of losses of all rows, then without each block; the version's own is 1."""
    found = estimate(losses, block)
    low, high = found.bounds(_SURE) if found.known else (None, None)
    return Quality(value=1 - float(losses[0]), loss=float(losses[0]), loss_low=low, loss_high=high)


def _runs(rows: int) -> Ints:
    return np.arange(rows) * min(_RUNS, rows) // rows


def _chunks(project: Project, digest: str) -> list[str]:
    found: list[str] = []
    for name, collection in sorted(project.definitions.collections.items()):
        build = project.builds.get(name)
        if build is not None and build.encoder == digest:
            found += StoredChunks(project.lake, collection, build.table_version).texts(digest)
    return _some(found)


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {file}.", fix="name a file of texts, one a line.") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"{file.name} is no text in UTF-8: {error}.", fix="write texts, one a line.") from error
    return _some([each for each in lines if each.strip()])


def _some(texts: Sequence[str]) -> list[str]:
    unique = list(dict.fromkeys(texts))
    chosen = np.unique(np.linspace(0, len(unique) - 1, min(_MOST_TEXTS, len(unique))).astype(np.int64))
    return [unique[place] for place in chosen] if unique else []


def _tokens(base: Bundle, texts: Sequence[str]) -> dict[str, Array]:
    names = [each.name for each in base.manifest.tensors]
    inputs = golden_of(base.files[TOKENIZER], texts, names, int(base.manifest.extra["most_tokens"]))["inputs"]
    return {name: np.array(values, np.int64) for name, values in inputs.items()}
