"""Feedback on answers: what a person says of one, ingested as a row of the source that is declared for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.core.errors import Conflict, Invalid, NotFound
from mainspring.core.expr.sql import quote_name, quote_text
from mainspring.core.schema import DType
from mainspring.core.time import to_datetime
from mainspring.data import duck
from mainspring.data.model import SEQUENCE, VISIBLE_AT, Source
from mainspring.llm.answers.feedback import ANSWER, REASON, feedback_value
from mainspring.llm.answers.rating import FOLDER, refuse, waiting
from mainspring.operations.ingest import land
from mainspring.project import Project

_log = logging.getLogger(__name__)
_AFTER = 1  # µs: a label is known after its prediction


class AnswerGone(NotFound):
    """The answer that is rated is not in the log."""


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """A person's feedback on an answer: column of feedback -> value, ingested into a source."""

    answers: str
    answer: str
    source: str
    said: Mapping[str, bool | int | float]


def rate(project: Project, answer: str, said: Sequence[str], reason: str = "") -> Rating:
    """Record what a person says of an answer; a later rating of the same column counts instead.

    Args:
        answer: Id of the answer.
        said: `COLUMN=VALUE` each, of columns of one source.
        reason: Text for the column "reason" of the source; empty for none.

    Raises:
        NotFound: The answer was never logged, or its chain is not declared any more.
        Invalid: A column is none of the chain's feedback, or a value is not one of its.
        Conflict: The row does not pass the checks of its source.
    """
    project.predictions.compact()
    try:
        logged = project.predictions.find(answer)
    except NotFound as error:
        raise AnswerGone(error.what, fix=error.fix) from error
    declared = project.definitions.answer_chain(logged.endpoint)
    known = {each.column: each for each in declared.labels}
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
    if reason and source.schema.get(REASON) is not DType.String:
        raise Invalid(f"Source {source.name!r} has no column {REASON!r} of text.", fix="leave the reason out.")
    why = {REASON: reason} if reason else {}
    before = _said_before(project, source, answer)  # a row without a column would take back what was said there
    row = {
        **dict.fromkeys(source.schema),
        **before,
        ANSWER: answer,
        **values,
        **why,
        **dict.fromkeys(source.times, now),
    }
    report = land(project, source.name, [row])
    if report.quarantined:
        raise Conflict(
            f"The rating of answer {answer} does not pass the checks of source {source.name!r}.",
            fix=f"see `mainspring data quarantine {source.name}`.",
        )
    return Rating(answers=declared.name, answer=answer, source=source.name, said=values)


def ingest_ratings(project: Project) -> int:
    """Ingest the ratings that gateways of this machine kept, and return how many. One that cannot be is put away, and
    said in the log; one whose answer is in the log no more, since it was erased or too old, is deleted.

    Raises:
        Unavailable: The catalog or the lake does not respond; the rest is ingested by the next call.
        StorageFull: Likewise.
    """
    done = 0
    for taken, given in waiting(project.settings.state / FOLDER):
        try:
            rate(project, given.answer, [f"{given.column}={given.value}"], given.reason)
        except AnswerGone as error:
            taken.unlink()
            _log.warning("A rating is dropped: %s", error)
        except (Conflict, Invalid, NotFound) as error:
            _log.error("The rating %s is not ingested: %s", refuse(taken), error)
        else:
            taken.unlink()
            done += 1
    return done


def _said_before(project: Project, source: Source, answer: str) -> dict[str, Any]:
    """Return the newest row of an answer in a source of feedback, empty without one."""
    if project.lake.version(source.name) is None:
        return {}
    names = [*source.schema, VISIBLE_AT, SEQUENCE]
    found = duck.batches(project.lake.scan(source.name), names, f"{quote_name(ANSWER)} = {quote_text(answer)}")
    rows = [row for batch in found for row in batch.to_pylist()]
    newest = max(rows, key=lambda row: (row[VISIBLE_AT], row[SEQUENCE]), default={})
    return {name: newest[name] for name in source.schema if name in newest}
