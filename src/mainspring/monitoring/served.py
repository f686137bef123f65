"""Description of a served bundle, as monitoring needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import msgspec

from mainspring.core.schema import DType
from mainspring.features.definitions import load
from mainspring.features.describe.personal import personal_names
from mainspring.registry.bundles import FEATURES
from mainspring.registry.model import Bundle, several_labels
from mainspring.stats import metrics
from mainspring.stats.crossings import Crossing
from mainspring.stats.metrics import Metric
from mainspring.stats.reference import Reference
from mainspring.stats.sketches import Ruler
from mainspring.stats.thresholds import decided

REFERENCE = "reference.json"


@dataclass(frozen=True)
class Served:
    """Description of a bundle's predictions: task, inputs, score and reference statistics."""

    task: str
    features: Mapping[str, DType]  # the model's inputs, by full name
    score: str  # the first output, which the log calls score
    reference: Reference | None  # of features and score
    labels: tuple[str, ...] = ()  # for several labels: their output names
    personal: frozenset[str] = frozenset()  # features, keys and request fields that identify a person
    more: tuple[Metric, ...] = ()  # metrics of the version in addition to the task's

    @cached_property
    def ruler(self) -> Ruler | None:
        """Maker of sketches of the features and the score; `None` without a reference."""
        if self.reference is None:
            return None
        return Ruler(self.reference, [*self.features, self.score], float32=self.narrow)

    @property
    def narrow(self) -> frozenset[str]:
        """Features that are sketched in the precision of training: a client's 0.1 is the float32 seen there."""
        return frozenset(name for name, dtype in self.features.items() if dtype in (DType.Float32, DType.Boolean))

    @cached_property
    def crossing(self) -> Crossing | None:
        """Maker of the evidence of segments; `None` without a reference."""
        return None if self.reference is None else Crossing(self.reference, self.score, tuple(self.personal))


def served(bundle: Bundle) -> Served:
    """Return the monitoring description of a bundle; without reference statistics there is no drift test."""
    manifest, content = bundle.manifest, bundle.files.get(REFERENCE)
    vectors = {tensor.name: DType.Float32 for tensor in manifest.tensors}  # sketched if the reference has them
    return Served(
        task=manifest.task,
        features={column.name: column.dtype for column in manifest.inputs} | vectors,
        score=manifest.outputs[0] if manifest.outputs else manifest.output_tensors[0].name,
        labels=several_labels(manifest),
        personal=personal_names(*load(bundle.files[FEATURES])) if FEATURES in bundle.files else frozenset(),
        reference=None if content is None else msgspec.json.decode(content, type=Reference),
        more=(*(metric for metric in map(metrics.named, manifest.metrics) if metric), *decided(manifest.extra)),
    )
