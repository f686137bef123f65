"""Assembly of a model card from the known facts of a version. Anything unknown becomes a gap, never a guess."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from io import BytesIO
from typing import Any

import msgspec

from mainspring.core.time import format_duration, format_instant, from_datetime
from mainspring.features import definitions
from mainspring.features.describe.personal import personal_inputs
from mainspring.features.offline.observed import AT
from mainspring.governance.energy import Points
from mainspring.governance.model import Attention, Card, Fact, Gap
from mainspring.governance.performance import performance_of
from mainspring.governance.resources import Price, resources_of
from mainspring.governance.words import gaps_of, read_words
from mainspring.registry.bundles import FEATURES, HOLDOUT
from mainspring.registry.lineage import Lineage
from mainspring.registry.model import Bundle, RunRecord
from mainspring.stats.fairness.reporting import FairnessReport
from mainspring.stats.metrics import Metric
from mainspring.stats.thresholds import THRESHOLD

DATA, LINEAGE = "Data", "Lineage"


def build(
    bundle: Bundle,
    lineage: Lineage,
    *,
    run: RunRecord | None,
    history: Callable[[str], Points],
    tables: Mapping[str, int] | None,
    words: str,
    words_file: str,
    hidden: Collection[str] = (),
    price: Price | None = None,
    description: str = "",
    owner: str = "",
    metrics: Sequence[Metric] = (),
    waivers: Sequence[str] = (),
    fairness: Sequence[FairnessReport] = (),
    unfair: Gap | None = None,
    attention: Attention | Gap | None = None,
) -> Card:
    """Return the model card of a version.

    Args:
        run: The version's run, `None` if it is not in this installation's store.
        history: Returns the run's history of a metric.
        tables: Table versions of the dataset commit, `None` if the commit is unknown here.
        words: The authors' text, in Markdown; see `governance.words`.
        words_file: The file of that text, named in gaps.
        hidden: Features whose values identify a person.
        waivers: The gates that are waived for this version, as text.
        fairness: Measures of groups of the held-out rows.
        unfair: Why groups that are declared could not be measured.
        attention: The columns that the model pays attention to, or why that is unknown.
        description: The current declaration's; so too `owner`, and `metrics`, those in addition to the task's.

    Raises:
        NotConvertible: The runtime cannot run the model.
    """
    sections = read_words(words)
    data, data_gaps = _data(bundle, tables)
    performance, performance_gaps = performance_of(bundle, hidden, metrics)
    origin, lineage_gaps = _lineage(lineage)
    resources, resource_gaps = resources_of(run, history, price, trained=_trained(bundle))
    manifest = bundle.manifest
    return Card(
        model=lineage.model,
        version=lineage.version,
        digest=lineage.digest,
        aliases=lineage.aliases,
        made=_facts(
            ("Description", description),
            ("Owner", owner),
            ("Task", manifest.task),
            ("Flavour", manifest.flavour),
            ("Answers", ", ".join(manifest.outputs or tuple(each.name for each in manifest.output_tensors))),
            ("Threshold", _threshold(manifest.extra)),
            ("Optimised", _optimised(manifest.extra)),
            ("Registered", format_instant(lineage.created_at)),
            ("Bundle", lineage.digest),
            *(("Waived gate", each) for each in waivers),
        ),
        words=sections,
        data=data,
        inputs=(
            *((each.name, each.dtype.value) for each in manifest.inputs),
            *((each.name, f"{each.datatype} {list(each.shape)}") for each in manifest.tensors),
        ),
        performance=performance,
        lineage=origin,
        resources=resources,
        gaps=(
            *gaps_of(sections, words_file),
            *data_gaps,
            *performance_gaps,
            *([attention] if isinstance(attention, Gap) else []),
            *lineage_gaps,
            *resource_gaps,
            *([unfair] if unfair is not None else []),
        ),
        fairness=tuple(fairness),
        attention=attention if isinstance(attention, Attention) else None,
    )


def _optimised(extra: Mapping[str, Any]) -> str | None:
    """Return which variant of its parent a version is, by `mainspring optimize`."""
    made = extra.get("optimised")
    if not isinstance(made, Mapping):
        return None
    worst = made.get("largest_difference")
    differs = f"; its answers differ from the parent's by at most {worst:.2g}" if isinstance(worst, float) else ""
    return f"{made.get('variant')} of version {made.get('parent_version')}: {made.get('how')}{differs}"


def _threshold(extra: Mapping[str, Any]) -> str:
    kept = extra.get(THRESHOLD)
    if kept is None:
        return ""
    costs = f"a false positive costs {kept['false_positive']:g}, a false negative {kept['false_negative']:g}"
    return f"{kept['value']:.6g}, chosen on the validation rows: {costs}"


def _data(bundle: Bundle, tables: Mapping[str, int] | None) -> tuple[tuple[Fact, ...], list[Gap]]:
    extra = bundle.manifest.extra
    if not _trained(bundle):
        what = "The version was not trained in this project, so its training data is unknown."
        return (), [Gap(DATA, what, "describe the training data in the card's words; or train the model here.")]
    gaps = []
    if tables is None:
        what = f"The dataset commit {bundle.manifest.dataset_commit} is not in this installation."
        gaps.append(Gap(DATA, what, "open the card where the version was trained."))
    return _facts(
        ("Label", _label(extra, bundle.manifest.outputs)),
        ("Observations", _asked(extra.get("since"), extra.get("until"))),
        ("Training rows", f"{extra['training_rows']:,}"),
        ("Held-out rows", f"{extra['holdout_rows']:,}"),
        ("Held out from", _held_out_times(bundle)),
        ("Observations without a label, left out", _count(extra.get("dropped") or extra.get("dropped_rows"))),
        ("Dataset commit", bundle.manifest.dataset_commit),
        ("Tables", ", ".join(f"{name} version {version}" for name, version in sorted((tables or {}).items()))),
        ("Inputs from columns marked pii", _personal(bundle)),
    ), gaps


def _personal(bundle: Bundle) -> str:
    """Return the inputs that may reveal a personal value, each with its source's columns."""
    if FEATURES not in bundle.files:
        return ""
    inputs = {each.name for each in bundle.manifest.inputs}
    found = personal_inputs(*definitions.load(bundle.files[FEATURES]))
    return ", ".join(f"{name} ({', '.join(columns)})" for name, columns in found.items() if name in inputs)


def _label(extra: Mapping[str, Any], outputs: Sequence[str]) -> str | None:
    labels = extra.get("labels")
    if labels is not None:  # by column; the outputs are named after the columns, in declaration order
        return "; ".join(_settled(labels[column]["name"], labels[column]) for column in outputs)
    return _settled(extra["label"], extra) if "label" in extra else None


def _settled(name: str, extra: Mapping[str, Any]) -> str:
    matures = extra.get("matures_us")
    if matures is None:
        return name
    otherwise = f", otherwise {msgspec.json.encode(extra['otherwise']).decode()}" if "otherwise" in extra else ""
    return f"{name}, matures after {format_duration(matures)}{otherwise}"


def _trained(bundle: Bundle) -> bool:
    """Return whether the bundle comes from a training; else it is an imported file, a function or a graph."""
    return "training_rows" in bundle.manifest.extra


def _asked(since: int | None, until: int | None) -> str:
    if since is None and until is None:
        return "all rows"
    begin = "the first" if since is None else format_instant(since)
    return f"{begin} until {'the last' if until is None else format_instant(until)}"


def _held_out_times(bundle: Bundle) -> str:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if HOLDOUT not in bundle.files or AT not in pq.read_schema(BytesIO(bundle.files[HOLDOUT])).names:
        return ""
    at = pq.read_table(BytesIO(bundle.files[HOLDOUT]), columns=[AT])[AT]
    if not len(at):
        return ""
    found: Any = pc.min_max(at).as_py()
    return f"{format_instant(from_datetime(found['min']))} to {format_instant(from_datetime(found['max']))}"


def _count(value: Any) -> str:
    """Return a row count as text, from a number or from numbers by reason."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {count:,}" for name, count in value.items() if count) or "0"
    return "" if value is None else f"{value:,}"


def _lineage(lineage: Lineage) -> tuple[tuple[Fact, ...], list[Gap]]:
    known = {
        "author": ", ".join(lineage.authors),
        "run": lineage.run_id,
        "code version": lineage.code_version,
    }
    gaps = [Gap(LINEAGE, f"The {name} is not recorded.", "train the model again.") for name in known if not known[name]]
    if lineage.run_id and not lineage.run_status:
        what = f"The run {lineage.run_id} is not in this installation's store."
        gaps.append(Gap(LINEAGE, what, "open the card where the version was trained."))
    return _facts(
        ("Author", known["author"]),
        ("Run", f"{lineage.run_id} {lineage.run_status}".strip()),
        ("Code", lineage.code_version),
        ("Features", lineage.features_digest),
        *((each.role.capitalize(), each.described) for each in lineage.ancestors),
        *((name, value) for name, value in sorted(lineage.tags.items()) if name.startswith("imported.")),
    ), gaps


def _facts(*pairs: tuple[str, str | None]) -> tuple[Fact, ...]:
    return tuple(Fact(name, value) for name, value in pairs if value)
