"""Inputs of a model, from its declaration alone: its features with their types, and the type of its label."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

from mainspring.core.errors import Invalid, InvalidData
from mainspring.core.schema import DType
from mainspring.data.model import Source
from mainspring.data.without import Remaining, Scan, Without
from mainspring.features.functions.model import DERIVED_FROM, DerivedSource
from mainspring.features.layout import feature_dtype
from mainspring.features.model import FeatureGroup, Observations, views_of
from mainspring.training.frames import CATEGORIES, check_feature_types
from mainspring.training.label import Label
from mainspring.training.model import Model

_ENCODE = "encode them as numbers in a feature, or name the other features one by one"
_LIBRARIES: Mapping[str, str] = {
    **dict.fromkeys(("xgboost", "lightgbm"), CATEGORIES),
    **dict.fromkeys(("torch", "keras"), _ENCODE),
}
_CHOOSING = {
    "with_categories", "categorical", "numeric", "category", "Categorical", "CategoricalDtype", "select_dtypes",
    "dtypes", "drop", "get_dummies", "factorize", "catboost", "sklearn.compose", "sklearn.preprocessing",
}  # fmt: skip


def check_declared(model: Model) -> None:
    """Raise if the model cannot be trained on any data; `apply` and `train` check this before they read data.

    Raises:
        Invalid: A feature has a type that no model accepts.
        InvalidData: The label's type does not fit the task.
    """
    feature_types(model, (*model.columns, *model.baseline_columns))
    check_label(model)


def text_notices(models: Iterable[Model]) -> list[str]:
    """Return a notice for each model whose function uses a library that does not accept the model's text features.

    The function is inspected, not run: its code and that of the project functions it calls are searched for names of
    libraries. A function that selects columns or creates categories gets no notice.
    """
    notices = []
    for model in models:
        texts = [name for name, dtype in feature_types(model, model.columns).items() if dtype == DType.String]
        words = _words(model.train) if texts else set()
        libraries = words & _LIBRARIES.keys()
        fixes = {_LIBRARIES[name] for name in libraries}
        if len(fixes) != 1 or words & set(model.columns):
            continue
        (fix,) = fixes
        names = " and ".join(sorted(libraries))
        notice = f"The function of model {model.name!r} uses {names}, which does not accept texts: {', '.join(texts)}."
        if not words & (_CHOOSING | {"sklearn"} if fix == _ENCODE else _CHOOSING):
            notices.append(f"{notice} Fix: {fix}.")
        elif libraries == {"xgboost"} and "with_categories" in words and "enable_categorical" not in words:
            notices.append(f"{notice} Fix: give the estimator enable_categorical=True.")
    return notices


def _words(function: Any) -> set[str]:
    """Return the names and texts in a function's code and in that of the project functions it calls.

    Includes the modules of the objects that the names refer to.
    """
    words: set[str] = set()
    waiting: list[Any] = [function]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if type(current) is not FunctionType or id(current) in seen:
            continue
        seen.add(id(current))
        own_words = _of_code(current.__code__)
        words |= own_words
        for value in (current.__globals__[name] for name in own_words & current.__globals__.keys()):
            words |= {".".join(module.split(".")[:depth]) for module in _modules(value) for depth in (1, 2)}
            if type(value) is FunctionType and _package(value) == _package(current):
                waiting.append(value)
    return words


def _modules(value: Any) -> list[str]:
    """Return the modules of an object's class and base classes; for a module or function, its own.

    No attribute of the object is accessed: a lazy object could import, or raise, on `__class__` or `__module__`.
    """
    kind = type(value)
    if issubclass(kind, ModuleType):
        return [str(ModuleType.__getattribute__(value, "__dict__").get("__name__", ""))]
    if kind in (FunctionType, BuiltinFunctionType):
        return [str(value.__module__)]
    classes = type.__getattribute__(value if issubclass(kind, type) else kind, "__mro__")
    return [str(type.__getattribute__(each, "__dict__").get("__module__", "")) for each in classes]


def _package(function: FunctionType) -> str:
    return str(function.__module__).partition(".")[0]


def _of_code(code: CodeType) -> set[str]:
    words = {part for name in code.co_names for part in (name, name.partition(".")[0])}
    waiting = list(code.co_consts)
    while waiting:
        constant = waiting.pop()
        if isinstance(constant, str):
            words.add(constant)
        elif isinstance(constant, CodeType):
            words |= _of_code(constant)
        elif isinstance(constant, (tuple, frozenset)):
            waiting.extend(constant)
    return words


def sources_of(sources: Iterable[Source]) -> dict[str, Source]:
    """Return sources by name, and before each computed one the source that it is computed from."""
    found: dict[str, Source] = {}
    for source in sources:
        chain = [source]
        while isinstance(chain[-1], DerivedSource):
            chain.append(chain[-1].parent)
        found |= {each.name: each for each in reversed(chain) if each.name not in found}
    return found


def read_by(model: Model) -> dict[str, Source]:
    """Return the sources that a model reads, as `sources_of` does."""
    return sources_read(model.observations, model.labels, all_groups(model))


def sources_read(
    observations: Observations, labels: Iterable[Label], groups: Iterable[FeatureGroup]
) -> dict[str, Source]:
    """Return the sources of labelled observations with features, and of the consent to use them, as `sources_of`."""
    consents = [] if observations.consent is None else [observations.consent.source]
    features = [view.source for view in views_of(list(groups))]
    return sources_of([observations.source, *consents, *(each.source for each in labels), *features])


def personal_columns(model: Model, source: str) -> frozenset[str]:
    """Return the columns of a source that the model reads which identify a person.

    They are those that it marks `pii`, and keys of entities that another source of the model marks so.
    """
    read = read_by(model)
    entities = [*model.observations.keys, *(view.entity for view in views_of(all_groups(model)))]
    marked = {name for each in read.values() for name in each.pii}
    return frozenset({*read[source].pii, *(name for each in entities for name in each.keys if name in marked)})


def check_left_out(model: Model, without: Iterable[Without]) -> None:
    """Raise if rows are to be left out by a value that identifies a person.

    What is left out is recorded with the version and in the audit log, where no erasure reaches it.

    Raises:
        Invalid: A column identifies a person.
    """
    read = read_by(model)
    for each in without:
        if each.source in read and each.column in personal_columns(model, each.source):
            raise Invalid(
                f"Column {each.column!r} of source {each.source!r} identifies a person, and what is left out is "
                "recorded where no erasure reaches it.",
                fix=f"leave out a batch, {each.source}@BATCH, or by another column.",
            )


def remaining(sources: Mapping[str, Source], scan: Scan, without: Sequence[Without]) -> Remaining:
    """Return scans of the tables of sources without some of their rows, and without what was computed from those.

    Raises:
        Invalid, InvalidData: See `Remaining`.
    """
    parents = {
        name: (each.parent.name, DERIVED_FROM) for name, each in sources.items() if isinstance(each, DerivedSource)
    }
    return Remaining(scan, sources, without, parents)


def personal_sources(model: Model) -> str:
    """Return a text that names the model's sources with columns marked pii; empty if there are none."""
    views = views_of(all_groups(model))
    sources = [model.observations.source, *(each.source for each in model.labels), *(view.source for view in views)]
    names = sorted({source.name for source in sources if source.pii})
    return f"the model reads {', '.join(names)}, with columns marked pii" if names else ""


def check_label(model: Model) -> DType:
    """Return the type of the model's label.

    Raises:
        InvalidData: The type does not fit the model's task.
    """
    dtype = model.label.source.columns[model.label.column]
    if dtype == DType.Timestamp or (dtype == DType.String and model.task != "multiclass"):
        labels = {
            "binary": "a Boolean, or 0 and 1",
            "multiclass": "a String or a whole number",
            "regression": "a number",
        }
        raise InvalidData(
            f"Label {model.label.name} is a {dtype!r}, which is not a label for the task {model.task!r}.",
            fix=f"name a column that is {labels[model.task]}, or another task.",
        )
    return dtype


def feature_types(model: Model, columns: Collection[str]) -> dict[str, DType]:
    """Return full name -> type of those features of the model and its baseline that are in `columns`, in order.

    Raises:
        Invalid: A feature has a type that no model accepts.
    """
    request = model.observations.source.columns
    found = {
        full_name: feature_dtype(group, name, request)
        for group in all_groups(model)
        for name, full_name in zip(group.names, group.columns, strict=True)
        if full_name in columns
    }
    check_feature_types(found)
    return found


def all_groups(model: Model) -> list[FeatureGroup]:
    """Return the feature groups of the model, of its baseline, and of its gates' slices, without duplicates."""
    every = (*model.features, *model.baseline, *model.slice_views)
    return list({group.name: group for group in every}.values())


def features_read(model: Model) -> list[str]:
    """Return the full names of the features of the model, of its baseline and of its gates' slices, in order."""
    used = {*model.columns, *model.baseline_columns, *model.slice_columns}
    return [name for group in all_groups(model) for name in group.columns if name in used]
