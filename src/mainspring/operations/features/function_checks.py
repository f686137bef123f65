"""Check of new and changed feature functions on rows of their sources, before they are applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mainspring.core.errors import InvalidDefinition
from mainspring.core.expr.sql import quote_name
from mainspring.data.model import SEQUENCE, Source
from mainspring.features.functions.model import ENCODER, DerivedSource, FeatureFunction, RequestFunction
from mainspring.features.functions.process import FunctionFailed, FunctionProcess
from mainspring.project import Project

_SAMPLE = 64  # rows

Contents = Mapping[tuple[str, str], str]


def check_functions(project: Project, old: Contents, new: Contents) -> None:
    """Call each function that is not applied yet, or in another version, on the newest rows of its source.

    A function without rows is only imported.

    Raises:
        InvalidDefinition: A function does not load, fails altogether, does not repeat its values, or depends on the
            rows beside a row.
    """
    problems = []
    for key, source, function in _functions(project):
        if old.get(key) != new.get(key):
            try:
                _check(project, source, function)
            except FunctionFailed as error:
                problems.append(f"{error}")
    if problems:
        raise InvalidDefinition(problems)


def _functions(project: Project) -> Iterator[tuple[tuple[str, str], Source, FeatureFunction]]:
    definitions = project.definitions
    for source in definitions.sources.values():
        if isinstance(source, DerivedSource) and source.function.engine != ENCODER:
            yield ("source", source.name), source.parent, source.function
    for group in definitions.request_features.values():
        if isinstance(group, RequestFunction) and group.source is not None:
            yield ("request features", group.name), group.source, group.function


def _check(project: Project, source: Source, function: FeatureFunction) -> None:
    from mainspring.data import duck
    from mainspring.features.functions.checking import check_repeats

    process = FunctionProcess(function)
    try:
        if project.lake.version(source.name) is None:
            process.start()
            return
        names = ", ".join(map(quote_name, function.columns))
        with duck.session() as con:
            duck.register(con, "source", project.lake.scan(source.name))
            rows = con.sql(f"SELECT {names} FROM source ORDER BY {SEQUENCE} DESC LIMIT {_SAMPLE}").to_arrow_table()
        check_repeats(process, rows)
    finally:
        process.close()
