"""Versions of an answer chain: what a recorded one declares, and how two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from mainspring.core.definition_registry import collecting
from mainspring.core.errors import NotFound
from mainspring.llm.answers.declaring import QUOTES, Answers, Retriever, reranker_of
from mainspring.llm.declaring import LanguageModel
from mainspring.llm.prompts import Prompt, Template, Variable
from mainspring.registry.answers_file import ANSWERS, AnswersFile, check_answers
from mainspring.vectors.declaring import Collection


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a recipe that two versions have otherwise. A part that one of them lacks is `None` there.

    Attributes:
        part: Path to it, such as "prompt.messages[0].text".
    """

    part: str
    before: Any
    after: Any


def recipe_bytes(declared: Answers) -> bytes:
    """Return the content of a version's file."""
    return msgspec.json.encode(declared.recipe(), order="deterministic")


def recipe_file(declared: Answers) -> AnswersFile:
    """Return the recipe of a declaration as it is stored."""
    return check_answers(recipe_bytes(declared), ANSWERS)


def restored(
    recipe: AnswersFile,
    declared: Answers,
    collections: Mapping[str, Collection],
    models: Mapping[str, LanguageModel],
) -> Answers:
    """Return the declaration that a version was recorded of.

    Keys, log and what versions are judged by are those of `declared`, the chain as it is declared now; so are its
    collection and its language model, which have versions of their own.

    Raises:
        NotFound: Its collection or its language model is not declared any more.
    """
    search, model = recipe.retriever, recipe.model["name"]
    collection = str(search["collection"]["name"])
    for kind, name, known in (("collection", collection, collections), ("language model", model, models)):
        if name not in known and name != QUOTES:
            raise NotFound(
                f"A version of the answers {recipe.name!r} needs the {kind} {name!r}, which is not declared.",
                fix="declare it again, or use another version.",
            )
    with collecting():
        retriever = Retriever(
            str(search["name"]),
            collection=collections[collection],
            k=search["k"],
            mode=search["mode"],
            candidates=search["searched"],
            min_score=search["min_score"],
            rerank=reranker_of(search["rerank"]),
        )
        return replace(
            declared,
            retriever=retriever,
            model=models.get(model),
            prompt=_prompt(recipe.prompt),
            rewrite=False if recipe.rewrite is None else _prompt(recipe.rewrite),
            most_characters=recipe.most_characters,
            max_tokens=recipe.max_tokens,
            temperature=recipe.temperature,
            seed=recipe.seed,
            not_found=recipe.not_found,
        )


def differences(before: AnswersFile, after: AnswersFile) -> list[Difference]:
    """Return what differs from a version to another, in the order of a recipe."""
    old, new = _flat("", msgspec.to_builtins(before)), _flat("", msgspec.to_builtins(after))
    return [
        Difference(part=part, before=old.get(part), after=new.get(part))
        for part in dict.fromkeys((*old, *new))
        if old.get(part) != new.get(part)
    ]


def elsewhere_changed(recipe: AnswersFile, now: Answers) -> list[Difference]:
    """Return how the collection and the language model of a version are declared now, where that is otherwise.

    Args:
        now: As `restored` returns it.
    """
    return [
        each
        for each in differences(recipe, recipe_file(now))
        if each.part.startswith(("retriever.collection.", "model."))
    ]


def _prompt(stored: Mapping[str, Any]) -> Prompt:
    messages = msgspec.convert(stored["messages"], list[Template])
    variables = msgspec.convert(stored["variables"], dict[str, Variable])
    return Prompt(str(stored["name"]), [(each.role, each.text) for each in messages], variables=variables)


def _flat(path: str, value: Any) -> dict[str, Any]:
    """Return path -> each value that is no mapping or list with members."""
    if isinstance(value, Mapping) and value:
        return {key: leaf for name, each in value.items() for key, leaf in _flat(f"{path}.{name}", each).items()}
    if isinstance(value, list) and value:
        return {key: leaf for at, each in enumerate(value) for key, leaf in _flat(f"{path}[{at}]", each).items()}
    return {path.removeprefix("."): value}
