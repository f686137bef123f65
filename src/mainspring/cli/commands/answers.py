"""`mainspring answers`: questions to the project's documents, with citations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands.answer_versions import agreement, judge_, promote, rate, rollback, versions
from mainspring.cli.commands.collections import show_figures
from mainspring.cli.help import Group
from mainspring.cli.stdout_redirect import dated
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {"identical": "green", "differs": "red", "cannot": "yellow"}


@click.group("answers", cls=Group)
def command() -> None:
    """Answers to questions, made of documents that they cite."""


@make("list")
def list_(call: Call) -> None:
    """List the declared chains of answers."""
    from msgspec import to_builtins

    from mainspring.operations.answers import answer_chains

    found = answer_chains(call.project)

    def show(console: Console) -> None:
        if not found:
            console.print("The project declares no answers.")
            return
        rows = [(each.name, each.collection, each.model, each.version) for each in found]
        show_records(console, ("answers", "collection", "model", "version"), rows)

    call.result(to_builtins(found), show)


@make("ask")
@click.argument("answers")
@click.argument("question")
@click.option("--before", multiple=True, metavar="QUESTION", help="Asked before in the conversation, the oldest first.")
@click.option("--tenant", help="Whose documents are searched; required where the collection has tenants.")
@click.option("--key", "keys", multiple=True, metavar="NAME=VALUE", help="Entity key by which the record is erased.")
@click.option("--session", default="", help="Name of the conversation, which a rollout by key keeps in one version.")
def ask(
    call: Call,
    *,
    answers: str,
    question: str,
    before: tuple[str, ...],
    tenant: str | None,
    keys: tuple[str, ...],
    session: str,
) -> None:
    """Ask ANSWERS a QUESTION. The answer is in the prediction log.

    Its champion answers, or the version that a rollout assigns; without either the chain as it is declared.
    """
    from msgspec import to_builtins

    from mainspring.core.errors import Invalid
    from mainspring.llm.answers.model import Question
    from mainspring.llm.model import Message, Text
    from mainspring.operations import answers as operations

    given = [key.partition("=") for key in keys]
    if wrong := [key for key, (name, separator, _) in zip(keys, given, strict=True) if not separator or not name]:
        raise Invalid(f"The key {wrong[0]!r} has no value.", fix="write --key NAME=VALUE.")
    said = tuple(Message(role="user", content=(Text(each),)) for each in before)
    named = {name: value for name, _, value in given}
    asked = Question(question, said, tenant=tenant, keys=named, session=session)
    found = operations.ask(call.project, answers, asked)

    def show(console: Console) -> None:
        console.print(found.text, markup=False, highlight=False, soft_wrap=True)
        for each in found.citations:
            where = f"[{each.number}] {each.document} [{each.start}:{each.end}]"
            console.print(f"  {where}", markup=False, highlight=False, soft_wrap=True)
        if found.rerank_failure:
            console.print(f"[yellow]not reranked:[/] {found.rerank_failure}", highlight=False, soft_wrap=True)
        why = f"; {found.reason}" if found.reason else ""
        tokens = f"{found.usage.prompt + found.usage.completion:,} tokens"
        console.print(f"[dim]{found.id}: version {found.version}, {found.model}, {tokens}{why}[/]", highlight=False)

    call.result(dated(to_builtins(found), "at"), show)


@make("replay")
@click.argument("answer")
@click.option("--ask/--no-ask", default=True, show_default=True, help="Also ask the language model again, which costs.")
def replay(call: Call, *, answer: str, ask: bool) -> int:
    """Make ANSWER again: the passages, the prompt bit for bit, and the model's reply.

    Its texts are decrypted; the audit log records the actor. Exits with 3 unless all are identical.
    """
    from msgspec import to_builtins

    from mainspring.operations import answers as operations

    call.project.predictions.compact()
    found = operations.replay(call.project, answer, ask_model=ask)

    def show(console: Console) -> None:
        for part, outcome in (("passages", found.retrieved), ("prompt", found.prompt), ("reply", found.reply)):
            console.print(f"{part}: [{_COLOURS[outcome]}]{outcome}[/]")
        for why in found.why:
            console.print(f"  {why}", markup=False, highlight=False)

    call.result(to_builtins(found), show)
    fine = found.fine or (not ask and {found.retrieved, found.prompt} == {"identical"})
    return exits.OK if fine else exits.GATE


@make("evaluate")
@click.argument("answers")
@click.option("--set", "set_name", default="", metavar="NAME", help="Evaluation set; by default its own.")
@click.option("--version", default="", help="Number or alias; by default as it is declared.")
def evaluate(call: Call, *, answers: str, set_name: str, version: str) -> None:
    """Measure ANSWERS by the questions of an evaluation set. They are not recorded."""
    from msgspec import to_builtins

    from mainspring.operations.answers import evaluate_chain

    found = evaluate_chain(call.project, answers, set_name, version)

    def show(console: Console) -> None:
        console.print(f"[bold]{found.answers}[/] version {found.version}: {found.questions:,} questions of {found.set}")
        show_figures(console, found.figures)
        for each in found.worst:
            told = ", ".join(f"{name} {value:.2f}" for name, value in each.values.items() if value is not None)
            console.print(f"  {each.question}: {told}", markup=False, highlight=False, soft_wrap=True)

    call.result(to_builtins(found), show)


@make("watch")
@click.argument("answers")
@click.option("--window", default="7d", show_default=True, help="Length of the window that ends now.")
@click.option("--reference", default="28d", show_default=True, help="Length of the time that it is compared with.")
def watch(call: Call, *, answers: str, window: str, reference: str) -> None:
    """Compare the recent questions to ANSWERS with earlier ones: the share without an answer, and what is asked.

    Their texts are decrypted; the audit log records the actor.
    """
    from msgspec import to_builtins

    from mainspring.operations import answers as operations

    found = operations.watch(call.project, answers, window=window, reference=reference)

    def show(console: Console) -> None:
        shown = {"unanswered": found.unanswered, "unanswered before": found.before, "change": found.change}
        show_figures(console, shown)
        for reason, count in sorted(found.reasons.items()):
            console.print(f"  {reason}: {count:,}", highlight=False)
        if found.never:
            told = f"{found.never:,} of {found.documents:,} documents were never retrieved, such as:"
            console.print(told, highlight=False)
            console.print(f"  {', '.join(found.unseen)}", markup=False, highlight=False, soft_wrap=True)
        if found.drift is None:
            console.print("Too few questions, or chunks, to judge what is asked.")
        elif not found.drift.verdict.drifted:
            console.print("The questions are of the same kinds as before.")
        else:
            again = ", as in the window before" if found.drift.verdict.alert else ""
            console.print(f"[yellow]The questions are of other kinds than before{again}[/], such as:")
            console.print(f"  {found.example}", markup=False, highlight=False, soft_wrap=True)

    call.result(to_builtins(found), show)


for _each in (list_, ask, replay, evaluate, watch, versions, promote, rollback, rate, agreement, judge_):
    command.add_command(_each)
