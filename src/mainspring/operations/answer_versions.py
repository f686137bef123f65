"""Versions of answer chains as registered models: signed bundles with the recipe of their answers.

So aliases, gates, approvals, waivers, history, audit and rollouts are those of any model. `apply` records a version.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mainspring.core.errors import NotFound
from mainspring.core.time import format_instant
from mainspring.delivery.routing import CHAMPION, routes_for
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.answers.versions import (
    Difference,
    differences,
    elsewhere_changed,
    recipe_bytes,
    recipe_file,
    restored,
)
from mainspring.operations.models.adding import store_version
from mainspring.operations.promote import gated
from mainspring.project import Project
from mainspring.registry.answers_file import ANSWERS, RECIPE, AnswersFile, check_answers
from mainspring.registry.model import Manifest, ModelVersion
from mainspring.serving.model import Route

FLAVOUR = "answers"


class AnswersVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded version of a chain.

    Attributes:
        recipe: Digest of all that decides its answers.
        champion: Whether it answers.
        candidate: Whether a rollout is trying it.
        declared: Whether the project declares it now.
        share: Of the questions, that it gets now.
        changed: What differs from the version before it.
        elsewhere: What of its collection or language model is declared otherwise now: it answers with what there is.
        missing: Why it cannot answer; empty if it can.
    """

    answers: str
    version: str
    recipe: str
    recorded_at: str
    champion: bool
    candidate: bool
    declared: bool
    share: float
    changed: tuple[Difference, ...]
    elsewhere: tuple[Difference, ...]
    missing: str = ""


def record_versions(project: Project) -> list[ModelVersion]:
    """Record each declared chain whose recipe has no version yet; return the versions that were made."""
    made = []
    for name, declared in sorted(project.definitions.answers.items()):
        if version_with(project, name, declared.digest) is None:
            version, new = store_version(project, _manifest(declared), _files(declared), {RECIPE: declared.digest})
            made += [version] if new else []
    return made


def _manifest(declared: Answers) -> Manifest:
    return Manifest(
        model=declared.name,
        task=FLAVOUR,
        flavour=FLAVOUR,
        inputs=(),
        outputs=("found",),
        run_id="",
        dataset_commit="",
        features_digest="",
        code_version="",
        created_at=0,
        extra={RECIPE: declared.digest},
    )


def _files(declared: Answers) -> Mapping[str, bytes]:
    return {ANSWERS: recipe_bytes(declared)}


def version_with(project: Project, name: str, recipe: str) -> ModelVersion | None:
    """Return the version with a recipe, by its digest; `None` if it was not recorded."""
    return next((each for each in project.versions.all(name) if each.tags.get(RECIPE) == recipe), None)


def declared_version(project: Project, name: str) -> ModelVersion:
    """Return the version that the project declares now.

    Raises:
        NotFound: The chain is not declared, or was not applied as it is declared.
    """
    found = version_with(project, name, project.definitions.answer_chain(name).digest)
    if found is None:
        raise NotFound(f"The answers {name!r} have no version as they are declared.", fix="run `mainspring apply`.")
    return found


def declared_name(project: Project, declared: Answers) -> str:
    """Return the number of the version that is declared, or the beginning of its digest if it was not applied."""
    found = version_with(project, declared.name, declared.digest)
    return declared.digest[:12] if found is None else found.version


def recipe_of(project: Project, version: ModelVersion) -> AnswersFile:
    """Return the recipe of a version. Its bundle is verified.

    Raises:
        NotFound: It is no version of an answer chain, or its bundle is gone.
        Corrupt: Its bundle is damaged.
    """
    bundle = project.bundles.load(version.digest)
    if ANSWERS not in bundle.files:
        raise NotFound(f"{version.model}:{version.version} is no version of an answer chain.")
    return check_answers(bundle.files[ANSWERS], ANSWERS)


def declaration(project: Project, name: str, version: str = "") -> Answers:
    """Return the chain as a version declares it, or as the project does.

    Args:
        version: Number or alias; empty for what the project declares.

    Raises:
        NotFound: There is no such chain or version, or what it needs is not declared any more.
    """
    declared = project.definitions.answer_chain(name)
    if not version:
        return declared
    recipe, definitions = recipe_of(project, project.versions.get(name, version)), project.definitions
    return restored(recipe, declared, definitions.collections, definitions.language_models)


def route_of(project: Project, name: str) -> Route | None:
    """Return the versions that answer now, by the champion and a rollout; `None` for a chain without gates that was
    never promoted: it answers as it is declared.

    Raises:
        NotFound: The chain has gates, or needs approvals, and no version has passed them.
    """
    names = gated(project)
    served = project.definitions.served(name)
    found = routes_for([served], project.versions, gated=names, rollouts=project.rollouts.live())
    if not found and name in names:
        raise NotFound(
            f"The answers {name!r} have gates, and no version has passed them.",
            fix=f"run `mainspring answers promote {name}`.",
        )
    return found[0] if found else None


def answer_versions(project: Project, name: str) -> list[AnswersVersion]:
    """Return the versions of a chain, the newest first.

    Raises:
        NotFound: The chain is not declared.
    """
    declared = project.definitions.answer_chain(name)
    versions = project.versions.all(name)
    route = next(iter(routes_for([project.definitions.served(name)], project.versions, gated=gated(project),
                                 rollouts=project.rollouts.live())), None)  # fmt: skip
    shares = {} if route is None else {arm.version: arm.weight for arm in route.arms}
    recipes = [recipe_of(project, each) for each in versions]
    return [
        _described(project, declared, each, recipe, before, shares)
        for each, recipe, before in zip(versions, recipes, (*recipes[1:], None), strict=True)
    ]


def _described(
    project: Project,
    declared: Answers,
    version: ModelVersion,
    recipe: AnswersFile,
    before: AnswersFile | None,
    shares: Mapping[str, float],
) -> AnswersVersion:
    elsewhere: list[Difference] = []
    missing = ""
    try:
        now = restored(recipe, declared, project.definitions.collections, project.definitions.language_models)
        elsewhere = elsewhere_changed(recipe, now)
    except NotFound as error:
        missing = error.what
    champion = CHAMPION in version.aliases
    own = recipe_file(declared)
    return AnswersVersion(
        answers=version.model,
        version=version.version,
        recipe=version.tags.get(RECIPE, "")[:12],
        recorded_at=format_instant(version.created_at),
        champion=champion,
        candidate=version.version in shares and not champion,
        declared=recipe == own,
        share=shares.get(version.version, 0.0),
        changed=() if before is None else tuple(differences(before, recipe)),
        elsewhere=tuple(elsewhere),
        missing=missing,
    )
