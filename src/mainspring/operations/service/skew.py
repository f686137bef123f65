"""Comparison of served features with the offline read, on a bounded sample of each hour's predictions.

The sample is drawn by a hash of the entity keys, so it has the same keys each hour.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainspring.core.time import DAY, HOUR, MINUTE
from mainspring.features import definitions
from mainspring.ledger.model import Selection
from mainspring.monitoring.incidents.model import Judged
from mainspring.monitoring.service.readings import State
from mainspring.monitoring.service.samples import Sample
from mainspring.monitoring.service.skew import MATCH, by_feature, outcome, signals, subject
from mainspring.monitoring.signals import SKEW
from mainspring.operations.replay.features import check_features, stored
from mainspring.project import Project
from mainspring.registry.bundles import FEATURES

if TYPE_CHECKING:
    from mainspring.ledger.model import Prediction

AN_HOUR = 200  # predictions that are compared, at most
_GRACE_US = 15 * MINUTE  # until the predictions of an hour, and the rows behind them, are in the lake
_LOOKED_BACK_US = 3 * HOUR  # windows that a pass judges


def compare(project: Project, endpoint: str, now: int) -> bool:
    """Compare a sample of the newest complete hour, once; return whether there was one.

    Hours that passed while no worker ran are left out. A sample is stored in the lake, then in the catalog with its
    hour. A worker that is killed in between compares the hour again, and the lake keeps what it has.

    Args:
        now: By the domain's clock.
    """
    place = hashlib.sha256(subject(endpoint).encode()).hexdigest()[:32]
    until = (now - _GRACE_US) // HOUR * HOUR
    before = project.service.state(place)
    if before is not None and before.at >= until:
        return False
    selection = Selection(endpoint=endpoint, since=until - HOUR, until=until)
    ids = project.predictions.sample_by_key(selection, AN_HOUR)
    by_version: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
    for part in project.predictions.scan(selection, ids) if ids else ():
        for each in part:
            by_version[each.version, each.digest].append(each)
    compared = {version: _compared(project, version[1], predictions) for version, predictions in by_version.items()}
    counts = sum(compared.values(), Counter())
    if counts:
        from mainspring.monitoring.service.skew_table import SkewTable

        table = SkewTable(project.lake)
        if table.add(endpoint, until - HOUR, compared):
            table.tidy(
                made_before=project.oldest_kept(project.settings.keep_sketches_us),
                replaced_before=project.wall.now() - project.settings.keep_versions_us,
            )
    at = project.wall.now()
    sample = Sample(subject=subject(endpoint), start=at - HOUR, end=at, observed_us=HOUR, counts=dict(counts))
    project.service.save(place, [sample] if counts else [], State(until))
    return True


def _compared(project: Project, digest: str, predictions: Sequence[Prediction]) -> Counter[str]:
    """Return the counts of a sample, by outcome and feature."""
    counts = Counter[str]()
    bundle = project.bundles.load(digest)
    if not stored(bundle):
        return counts
    groups, _ = definitions.load(bundle.files[FEATURES])
    names = {name for group in groups for name in group.columns}
    for each, check in zip(predictions, check_features(predictions, bundle, project.lake.scan), strict=True):
        if check.why:
            continue
        for name in names & each.features.keys():
            found = check.differing.get(name)
            counts[f"{MATCH if found is None else outcome(found.logged, found.again)} {name}"] += 1
    return counts


def skew(project: Project, endpoint: str) -> dict[str, dict[str, int]]:
    """Return feature -> outcome -> number of values that were compared within the last day."""
    now = project.wall.now()
    return by_feature(project.service.samples(now - DAY, now + 1, {subject(endpoint)}))


def judged(project: Project, endpoint: str) -> list[Judged]:
    """Return the last samples as windows, by the machine's clock, and the features beyond the declared tolerance."""
    monitor = project.definitions.monitors.get(endpoint)
    if monitor is None or monitor.skew is None:
        return []
    now = project.wall.now()
    samples = project.service.samples(now - _LOOKED_BACK_US, now + 1, {subject(endpoint)})
    windows = tuple((each.start, each.end) for each in samples)
    return [Judged(endpoint, SKEW, windows, tuple(signals(endpoint, monitor.skew, samples)))] if windows else []
