"""View models of prompts: their list, one with its versions, and two versions side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import msgspec
from markupsafe import Markup

from mainspring.console.chains.figures import NEWEST, PROMPT, AnswerFigures, figures, grouped, is_answer
from mainspring.console.paging import Paged, paged
from mainspring.console.prompts.word_changes import changes, marked
from mainspring.ledger.model import Prediction
from mainspring.llm.answers.declaring import Answers
from mainspring.llm.prompts import PromptAlias, PromptVersion, Template, Variable
from mainspring.operations.prompts import prompt_version
from mainspring.project import Project


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt in the list. `chains` are those that it is a part of, as declared now."""

    newest: PromptVersion
    aliases: tuple[PromptAlias, ...]
    chains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version of a prompt.

    Attributes:
        aliases: Those that point at it; `canaries`: those that give it to a share of the keys.
        chains: Chains of answers whose declaration has it now.
        figures: Of the newest answers that were made with it; `None` if there are none that the caller may see.
    """

    version: PromptVersion
    aliases: tuple[PromptAlias, ...]
    canaries: tuple[PromptAlias, ...]
    chains: tuple[str, ...]
    figures: AnswerFigures | None


@dataclass(frozen=True, slots=True)
class MessagePair:
    """The same place of two versions; an empty role where one has no message there."""

    before_role: str
    after_role: str
    before: Markup
    after: Markup


@dataclass(frozen=True, slots=True)
class VariablePair:
    """A variable of two versions, each as text; empty where one does not have it."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class PromptComparison:
    """Two versions of a prompt side by side."""

    before: PromptVersion
    after: PromptVersion
    messages: tuple[MessagePair, ...]
    variables: tuple[VariablePair, ...]

    @property
    def same(self) -> bool:
        return self.before.digest == self.after.digest


@dataclass(frozen=True, slots=True)
class PromptPage:
    """One prompt. `shown` is the newest version, with its messages; `comparison` of two, unless it has one alone;
    `numbers` are those of all versions."""

    name: str
    aliases: tuple[PromptAlias, ...]
    versions: Paged[VersionRow]
    numbers: tuple[int, ...]
    shown: PromptVersion
    comparison: PromptComparison | None


def prompt_rows(project: Project, begin: int = 0) -> Paged[PromptRow]:
    """Return a page of the prompts, by name."""
    chains = project.definitions.answers.values()
    newest = sorted(project.prompts.newest(), key=lambda each: each.name)
    return paged(newest, begin).made(
        lambda each: PromptRow(each, tuple(project.prompts.aliases(each.name)), tuple(_of_prompt(chains, each.name)))
    )


def prompt_page(
    project: Project,
    name: str,
    before: int | None = None,
    after: int | None = None,
    chains: Iterable[str] = (),
    begin: int = 0,
) -> PromptPage:
    """Return the page of a prompt.

    Args:
        before, after: The versions that are compared; by default the last two.
        chains: Chains of answers whose answers are counted.
        begin: Place of the first version in the table.

    Raises:
        NotFound: There is no such prompt, or no such version.
    """
    shown = prompt_version(project, name)
    versions, aliases = project.prompts.all(name), project.prompts.aliases(name)
    made = [each for chain in chains for each in _answers(project, chain)]
    by_digest = grouped(made, lambda each: str(each.features.get(PROMPT, "")))
    rows = paged(versions, begin).made(
        lambda each: VersionRow(
            each,
            tuple(alias for alias in aliases if alias.version == each.version),
            tuple(alias for alias in aliases if alias.canary == each.version),
            tuple(_of_digest(project.definitions.answers.values(), each)),
            figures(by_digest.get(each.digest, ())),
        )
    )
    comparison = None
    if len(versions) > 1 or before is not None or after is not None:
        comparison = compared(
            prompt_version(project, f"{name}:{shown.version - 1 if before is None else before}"),
            shown if after is None else prompt_version(project, f"{name}:{after}"),
        )
    return PromptPage(name, tuple(aliases), rows, tuple(each.version for each in versions), shown, comparison)


def compared(before: PromptVersion, after: PromptVersion) -> PromptComparison:
    """Return two versions side by side."""
    messages = []
    nothing = Template("user", "")
    for old, new in zip_longest(before.messages, after.messages):
        pieces = changes((old or nothing).text, (new or nothing).text)
        messages.append(
            MessagePair(
                old.role if old else "",
                new.role if new else "",
                marked(pieces, without="added"),
                marked(pieces, without="removed"),
            )
        )
    names = sorted({*before.variables, *after.variables})
    variables = tuple(
        VariablePair(name, described(before.variables.get(name)), described(after.variables.get(name)))
        for name in names
    )
    return PromptComparison(before, after, tuple(messages), variables)


def described(variable: Variable | None) -> str:
    """Return a variable as text; empty for none."""
    if variable is None:
        return ""
    limits = f", one of {', '.join(map(str, variable.values))}" if variable.values else ""
    return f"{variable.type} of {variable.provenance}, up to {variable.longest:,} characters{limits}"


def version_document(version: PromptVersion) -> dict[str, object]:
    """Return a version as JSON values."""
    found: dict[str, object] = msgspec.to_builtins(version)
    return found


def _answers(project: Project, chain: str) -> Sequence[Prediction]:
    return [each for each in project.predictions.recent(chain, NEWEST) if is_answer(each)]


def _of_prompt(chains: Iterable[Answers], name: str) -> list[str]:
    used = [(each.name, each.prompt, each.rewriting) for each in chains]
    return sorted(chain for chain, *prompts in used if any(each is not None and each.name == name for each in prompts))


def _of_digest(chains: Iterable[Answers], version: PromptVersion) -> list[str]:
    used = [(each.name, each.prompt, each.rewriting) for each in chains]
    return sorted(
        chain
        for chain, *prompts in used
        if any(each is not None and (each.name, each.digest) == (version.name, version.digest) for each in prompts)
    )
