"""A trained version: its held-out rows judge, its training rows calibrate and teach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core.errors import MainspringError, NotConvertible
from mainspring.delivery.held_out import read_held_out
from mainspring.deploy.edge.golden import worst_difference
from mainspring.operations.models.adding import store_version
from mainspring.operations.optimise.bundling import answered
from mainspring.operations.optimise.judging import judge_gates, metric_of, quality_of, side_by_side, with_metrics
from mainspring.operations.optimise.measuring import apart
from mainspring.operations.optimise.model import MADE
from mainspring.operations.optimise.retraining import not_asked, pruned
from mainspring.operations.optimise.subject import Judged, Progress, Wish
from mainspring.project import Project
from mainspring.registry.bundles import MODEL
from mainspring.registry.model import Bundle, ModelVersion
from mainspring.training.flavours import Artefact
from mainspring.training.flavours.scoring import artefact_feeds, score_bundle
from mainspring.training.frames import Array, to_array, to_frame
from mainspring.training.optimise.fine_tuning import PRUNED
from mainspring.training.optimise.students import tree_student
from mainspring.training.optimise.variants import Variant
from mainspring.training.runs.provenance import pinned_scan
from mainspring.training.sets.assemble import training_rows_again

if TYPE_CHECKING:
    import pyarrow as pa

STUDENTS: Mapping[str, int] = {"student-64": 64, "student-16": 16}  # name -> boosted trees
_MOST_CALIBRATED, _MOST_TAUGHT = 1000, 50_000  # training rows


class Labelled:
    """`Subject` with labels.

    Args:
        parent: The version.
        base: The same in ONNX.
    """

    def __init__(self, project: Project, parent: Bundle, base: Bundle) -> None:
        self._project, self._parent, self._base = project, parent, base
        self._declared = project.definitions.models.get(parent.manifest.model)
        self.metric = metric_of(self._declared, parent.manifest.task)
        self.rows = read_held_out(parent).num_rows
        self.judged_on = f"{self.rows:,} held-out rows"

    def calibration(self) -> Mapping[str, Array]:
        return self._calibration

    def trained(self, wish: Wish, tell: Progress, /) -> Iterator[Variant]:
        def told(stage: str) -> None:
            tell(stage, 0.3)

        chosen = [name for name in PRUNED if name in wish.only or (wish.retrain and not wish.only)]
        yield from pruned(self._project, self._base, self._declared, chosen, wish.epochs, told)
        if not chosen and not wish.only:
            yield from not_asked(self._base.files[MODEL])
        yield from self._students(wish, told)

    def judged(self, bundle: Bundle) -> Judged:
        metric, higher = self.metric
        rows = side_by_side(bundle, self._parent, self._declared)
        other = rows.candidate if rows.other is None else rows.other
        failed: tuple[str, ...] = ()
        if self._declared is not None and bundle is not self._parent:
            results = judge_gates(with_metrics(bundle, self._declared), self._declared, self._parent)
            failed = tuple(str(result) for result in results if not result.passed)
        shape = len(rows), -1
        worst = worst_difference(rows.candidate.scores.reshape(shape), other.scores.reshape(shape))
        return Judged(quality_of(rows, metric, higher=higher, declared=self._declared), worst, failed)

    def apart(self, bundle: Bundle) -> float:
        return apart(self._project, bundle)

    def register(self, variant: Bundle, made: Mapping[str, Any], origin: Mapping[str, str]) -> ModelVersion:
        own = answered(with_metrics(variant, self._declared))
        manifest = msgspec.structs.replace(
            own.manifest,
            run_id="",
            created_at=0,
            files={},
            # one step of 8 bits may fall otherwise
            tolerance=max(own.manifest.tolerance, float(made["largest_difference"] or 0.0)),
            extra={**own.manifest.extra, MADE: made},
        )
        return store_version(self._project, manifest, own.files, origin)[0]

    def _students(self, wish: Wish, tell: Callable[[str], None]) -> Iterator[Variant]:
        """Yield boosted trees that learn the parent's predictions for its training rows."""
        manifest, table = self._parent.manifest, None
        for name, trees in STUDENTS.items():
            if not wish.wants(name):
                continue
            tell(f"train {name}")
            how = f"{trees} boosted trees that learn the version's predictions"
            try:
                table = table or self._training_rows(_MOST_TAUGHT)
                frame = to_frame(table, {each.name: each.dtype for each in manifest.inputs})
                wide, seed = manifest.extra.get("float64", ()), manifest.extra.get("seed", 0)
                predictions = score_bundle(self._parent, table)
                content = tree_student(
                    frame, predictions, manifest.inputs, manifest.outputs, manifest.task,
                    trees=trees, wide=wide, double=manifest.extra.get("answers") == "FP64", seed=seed,
                )  # fmt: skip
            except MainspringError as error:
                yield Variant(name, how, why_not=error.what)
            else:
                yield Variant(name, how, content)

    @cached_property
    def _calibration(self) -> dict[str, Array]:
        """Training rows as inputs of the graph."""
        manifest, table = self._parent.manifest, self._training_rows(_MOST_CALIBRATED)
        columns = {each.name: to_array(table.column(each.name), each.dtype) for each in manifest.inputs}
        return artefact_feeds(Artefact("onnx", MODEL, self._base.files[MODEL]), columns, list(columns))

    def _training_rows(self, most: int) -> pa.Table:
        """Return rows that the version was trained on, with its features.

        Raises:
            NotConvertible: They are gone, or the project declares no such model.
        """
        project, manifest = self._project, self._parent.manifest
        try:
            commit = project.snapshots.get(manifest.dataset_commit)
            labels = project.definitions.model(manifest.model).labels
            scan = partial(pinned_scan, project.lake, commit)
            return training_rows_again(self._parent, labels, scan, most)
        except MainspringError as error:
            raise NotConvertible(f"Its training rows cannot be read: {error.what}") from error
