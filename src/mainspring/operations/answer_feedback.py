"""Feedback on answers: what a person says of one, ingested as a row of the source that is declared for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Invalid
from mainspring.core.time import to_datetime
from mainspring.data.model import Source, SourceColumn
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.feedback import ANSWER, feedback_value
from mainspring.operations.ingest import land
from mainspring.project import Project

_AFTER = 1  # µs: a label is known after its prediction


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """What a person says of an answer: column of feedback -> value, ingested into a source."""

    answers: str
    answer: str
    source: str
    said: Mapping[str, bool | int | float]


def feedback_columns(declared: Answers) -> dict[str, SourceColumn]:
    """Return the columns by which answers of a chain are rated, by name: its feedback, and its judges' labels."""
    labels = [judge.labels for judge in declared.judges]
    return {each.column: each for each in (*labels, *_columns(declared))}


def _columns(declared: Answers) -> Sequence[SourceColumn]:
    given = declared.feedback
    return (given,) if isinstance(given, SourceColumn) else given


def rate(project: Project, answer: str, said: Sequence[str]) -> Rating:
    """Record what a person says of an answer; a later rating of the same column counts instead.

    Args:
        answer: Id of the answer.
        said: `COLUMN=VALUE` each, of columns of one source.

    Raises:
        NotFound: The answer was never logged, or its chain is not declared any more.
        Invalid: A column is none of the chain's feedback, or a value is not one of its.
        Conflict: The row does not pass the checks of its source.
    """
    project.predictions.compact()
    logged = project.predictions.find(answer)
    declared = project.definitions.answer_chain(logged.endpoint)
    known = feedback_columns(declared)
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for each in said:
        name, separator, text = each.partition("=")
        if not separator or name not in known:
            names = ", ".join(f"{column}=VALUE" for column in known) or "the chain declares none: feedback="
            raise Invalid(f"{each!r} is no feedback of the answers {declared.name!r}.", fix=f"write {names}.")
        values[name] = feedback_value(known[name], text)
        sources[known[name].source.name] = known[name].source
    if len(sources) > 1:
        raise Invalid(f"The columns are of several sources: {', '.join(sorted(sources))}.", fix="rate one by one.")
    (source,) = sources.values()
    now = to_datetime(max(project.clock.now(), logged.at + _AFTER))
    row = {**dict.fromkeys(source.schema), ANSWER: answer, **values, **dict.fromkeys(source.times, now)}
    report = land(project, source.name, [row])
    if report.quarantined:
        raise Conflict(
            f"The rating of answer {answer} does not pass the checks of source {source.name!r}.",
            fix=f"see `mainspring data quarantine {source.name}`.",
        )
    return Rating(answers=declared.name, answer=answer, source=source.name, said=values)
