"""`mainspring replay`: one logged prediction, or a sample of them, answered again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from mainspring.core.errors import Invalid, MainspringError
from mainspring.ledger.model import Selection
from mainspring.operations import prediction as logged
from mainspring.operations.auditing import audit
from mainspring.operations.prediction import model_inputs
from mainspring.operations.replay.answers import Models, answer
from mainspring.operations.replay.features import check_features, stored
from mainspring.operations.replay.model import CANNOT, DIFFERS, OUTCOMES, Missing, Replayed, ReplayReport, Verdict
from mainspring.operations.replay.provenance import here, provenance
from mainspring.project.executors import executors

if TYPE_CHECKING:
    from mainspring.ledger.model import Prediction
    from mainspring.project import Project
    from mainspring.security.model import Principal

REPLAY = "predictions.replay"
_SHOWN = 20  # verdicts that differ
_EXAMPLES = 3  # verdicts of a feature that differs
_CALLS = 64  # original batches that are kept, because several of their rows may be in one sample


def replay(
    project: Project,
    prediction_id: str,
    *,
    reveal: bool = False,
    features: bool = True,
    principal: Principal | None = None,
) -> Replayed:
    """Answer a logged prediction again with the bundle that made it.

    Args:
        reveal: Whether values that identify a person are decrypted, with an event in the audit log.
        features: Whether stored features are read again as of the prediction's instant.
        principal: The caller, by default the user of this process; to reveal, a key needs the scope `manage`.

    Raises:
        NotFound: It was never logged.
        Denied: The key lacks the scope.
        Conflict: Its endpoint does not log such values.
        Corrupt: The values were sealed by another installation's key.
    """
    found = logged.reveal(project, prediction_id, principal) if reveal else project.predictions.find(prediction_id)
    with _models(project) as models:
        (verdict,) = _verdicts(project, [found], models, features=features, reveal=reveal)
        try:
            inputs = model_inputs(found, models.bundle(found.digest).manifest)
        except MainspringError:
            inputs = dict(found.features)
    return Replayed(verdict=verdict, provenance=provenance(project, found), inputs=inputs)


def replay_sample(
    project: Project,
    selection: Selection,
    count: int,
    *,
    seed: int = 0,
    reveal: bool = False,
    features: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayReport:
    """Answer a random sample of compacted predictions again; memory holds some thousands at once.

    Args:
        count: Size of the sample; all of the selection, if there are fewer.
        reveal: As of `replay`; the audit log gets one event for the sample.
        progress: Called with the number of replayed predictions, and the size of the sample.

    Raises:
        Invalid: The sample is empty.
    """
    if count < 1:
        raise Invalid(f"A sample of {count} is empty.", fix="take at least 1: --sample 1000.")
    began = time.monotonic()
    ids = project.predictions.sample(selection, count, seed=seed)
    if reveal:
        audit(project, REPLAY, f"endpoint/{selection.endpoint or '*'}", f"{len(ids)} predictions, seed {seed}")
    tally = _Tally()
    with _models(project) as models:
        for part in project.predictions.scan(selection, ids):
            tally.add(_verdicts(project, part, models, features=features, reveal=reveal))
            if progress is not None:
                progress(tally.predictions, len(ids))
    return tally.report(selection.endpoint, round(time.monotonic() - began, 3))


@contextmanager
def _models(project: Project) -> Iterator[Models]:
    models = Models(project.bundles.load, executors(project, one_thread=True))
    try:
        yield models
    finally:
        models.close()


def _verdicts(
    project: Project, predictions: Sequence[Prediction], models: Models, *, features: bool, reveal: bool
) -> list[Verdict]:
    shown, sealed = [], {}
    for each in predictions:
        try:
            shown.append(project.predictions.revealed(each) if reveal else each)
        except MainspringError as error:  # by the key of another installation
            sealed[each.id] = error
            shown.append(each)

    @lru_cache(maxsize=_CALLS)
    def batch(endpoint: str, at: int, digest: str) -> Sequence[Prediction]:
        selection = Selection(endpoint=endpoint, since=at, until=at + 1)
        made = [one for part in project.predictions.scan(selection) for one in part if one.digest == digest]
        made.sort(key=lambda one: one.id)
        return [project.predictions.revealed(one) for one in made] if reveal else made

    verdicts = answer(shown, models, lambda each: batch(each.endpoint, each.at, each.digest))
    verdicts = [
        msgspec.structs.replace(each, why=sealed[each.prediction_id].what, fix=sealed[each.prediction_id].fix)
        if each.prediction_id in sealed and each.outcome == CANNOT
        else each
        for each in verdicts
    ]
    return _with_features(project, shown, verdicts, models) if features else verdicts


def _with_features(
    project: Project, predictions: Sequence[Prediction], verdicts: list[Verdict], models: Models
) -> list[Verdict]:
    places: dict[str, list[int]] = {}
    for place, each in enumerate(predictions):
        places.setdefault(each.digest, []).append(place)
    for digest, of in places.items():
        try:
            bundle = models.bundle(digest)
        except MainspringError:  # the verdict says so
            continue
        if stored(bundle):
            checks = check_features([predictions[place] for place in of], bundle, project.lake.scan)
            for place, check in zip(of, checks, strict=True):
                verdicts[place] = msgspec.structs.replace(verdicts[place], features=check)
    return verdicts


class _Tally:
    """Verdicts, summed up."""

    def __init__(self) -> None:
        self.predictions = 0
        self._outcomes: Counter[str] = Counter()
        self._by_version: dict[str, Counter[str]] = {}
        self._largest: float | None = None
        self._alone = self._in_batch = 0
        self._differing: list[Verdict] = []
        self._missing: dict[str, tuple[int, Verdict]] = {}
        self._compared = self._unequal = 0
        self._features: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._examples: dict[str, Verdict] = {}

    def add(self, verdicts: Sequence[Verdict]) -> None:
        self.predictions += len(verdicts)
        for each in verdicts:
            self._outcomes[each.outcome] += 1
            self._by_version.setdefault(f"{each.model} {each.version}", Counter())[each.outcome] += 1
            self._alone += each.rows == 1
            self._in_batch += each.rows > 1
            if each.largest is not None:
                self._largest = max(self._largest or 0.0, each.largest)
            if each.outcome == DIFFERS and len(self._differing) < _SHOWN:
                self._differing.append(each)
            if each.outcome == CANNOT:
                reason = each.why.replace(each.prediction_id, "")
                count, first = self._missing.get(reason, (0, each))
                self._missing[reason] = count + 1, first
            self._add_features(each)

    def _add_features(self, verdict: Verdict) -> None:
        check = verdict.features
        if check is None:
            return
        if check.why:
            self._skipped[check.why] += 1
            return
        self._compared += check.compared
        self._unequal += len(check.differing)
        for name in check.differing:
            self._features[name] += 1
            if self._features[name] <= _EXAMPLES:
                self._examples[verdict.prediction_id] = verdict

    def report(self, endpoint: str | None, seconds: float) -> ReplayReport:
        reasons = sorted(self._missing.values(), key=lambda each: -each[0])
        return ReplayReport(
            endpoint=endpoint,
            predictions=self.predictions,
            outcomes={outcome: self._outcomes[outcome] for outcome in OUTCOMES},
            by_version={name: dict(found) for name, found in sorted(self._by_version.items())},
            largest=self._largest,
            alone=self._alone,
            in_batch=self._in_batch,
            differing=tuple(self._differing),
            missing=tuple(Missing(predictions=n, why=first.why, fix=first.fix) for n, first in reasons),
            features_compared=self._compared,
            features_equal=self._compared - self._unequal,
            features_differing=dict(self._features.most_common()),
            features_skipped=dict(self._skipped.most_common()),
            examples=tuple(self._examples.values()),
            runtime=here(),
            seconds=seconds,
        )
