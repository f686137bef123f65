"""`mainspring answers versions`, `promote`, `rollback`, `rate` and `agreement`: which version of a chain answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands import promote as promoting
from mainspring.cli.commands import rollback as rolling_back

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.answer_versions import AnswersVersion

_LONGEST = 60  # characters of a value that is shown


@make("versions")
@click.argument("answers")
def versions(call: Call, *, answers: str) -> None:
    """List the versions of ANSWERS, the newest first, with what differs from the one before."""
    from msgspec import to_builtins

    from mainspring.operations.answer_versions import answer_versions

    found = answer_versions(call.project, answers)

    def show(console: Console) -> None:
        if not found:
            console.print("It has no version yet. Fix: run `mainspring apply`.", highlight=False)
        for each in found:
            console.print(f"[bold]version {each.version}[/] {each.recorded_at}{_marks(each)}", highlight=False)
            for part in each.changed:
                line = f"  {part.part}: {_short(part.before)} -> {_short(part.after)}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            for part in each.elsewhere:
                line = f"  declared otherwise now: {part.part}: {_short(part.before)} -> {_short(part.after)}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
            if each.missing:
                console.print(f"  {each.missing}", markup=False, highlight=False, soft_wrap=True)

    call.result(to_builtins(found), show)


def _marks(version: AnswersVersion) -> str:
    marks = [
        "[green]champion[/]" if version.champion else "",
        "[yellow]candidate[/]" if version.candidate else "",
        f"{version.share:.0%} of the questions" if 0 < version.share < 1 else "",
        "declared" if version.declared else "",
    ]
    return "".join(f", {each}" for each in marks if each)


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


@make("promote")
@click.argument("answers")
@click.argument("version", required=False)
@click.option("--reason", default="", help="Reason, for the promotion history.")
def promote(call: Call, *, answers: str, version: str | None, reason: str) -> int:
    """Let VERSION of ANSWERS, by default the declared one, answer if it passes the chain's gates; else exit with 3."""
    call.project.definitions.answer_chain(answers)
    return promoting.promoted(call, answers, version, reason)


@make("rollback")
@click.argument("answers")
@click.option("--reason", default="", help="Reason, for the promotion history.")
@click.option("--emergency", is_flag=True, help="Return to a version of your own that is not approved; give a reason.")
def rollback(call: Call, *, answers: str, reason: str, emergency: bool) -> None:
    """Let the version before answer again, and end the chain's rollout."""
    call.project.definitions.answer_chain(answers)
    rolling_back.rolled_back(call, answers, reason, emergency=emergency)


@make("rate")
@click.argument("answer")
@click.argument("said", nargs=-1, required=True, metavar="COLUMN=VALUE...")
def rate(call: Call, *, answer: str, said: tuple[str, ...]) -> None:
    """Record what a person says of ANSWER, by its id: COLUMN=VALUE of the chain's feedback, such as helpful=true."""
    from msgspec import to_builtins

    from mainspring.operations.answer_feedback import rate as rated

    found = rated(call.project, answer, said)

    def show(console: Console) -> None:
        told = ", ".join(f"{name} {value}" for name, value in found.said.items())
        console.print(f"Answer {found.answer} of {found.answers}: {told}.", markup=False, highlight=False)

    call.result(to_builtins(found), show)


@make("agreement")
@click.argument("answers")
@click.argument("judge")
def agreement(call: Call, *, answers: str, judge: str) -> int:
    """Measure how far JUDGE of ANSWERS agrees with people on the same answers; exit with 3 if gates may not use it.

    The answers' texts are decrypted; the audit log records the actor.
    """
    from msgspec import to_builtins

    from mainspring.operations.answer_gates import judge_agreement

    found = judge_agreement(call.project, answers, judge)

    def show(console: Console) -> None:
        kappa = "unknown: all are of one class" if found.kappa is None else f"{found.kappa:.2f}"
        around = "" if found.low is None or found.high is None else f" ({found.low:.2f} to {found.high:.2f})"
        same = f"{found.agreed:.0%} of {found.cases:,} answers alike"
        console.print(f"kappa {kappa}{around}, {same}; gates need {found.needed:g} or more.", highlight=False)
        if found.unreadable:
            console.print(f"{found.unreadable:,} labelled answers have no texts in the log.", highlight=False)

    call.result(to_builtins(found), show)
    return exits.OK if found.fine else exits.GATE


@make("judge")
@click.argument("answers")
@click.argument("judge")
@click.option(
    "--window", default="1d", show_default=True, help="Length of the time until now whose answers are judged."
)
@click.option("--most", default=100, show_default=True, type=click.IntRange(1, 1000), help="Number of answers.")
def judge_(call: Call, *, answers: str, judge: str, window: str, most: int) -> None:
    """Let JUDGE judge a sample of the logged answers of ANSWERS, and keep what it says for rollouts and the monitor.

    The answers' texts are decrypted; the audit log records the actor.
    """
    from msgspec import to_builtins

    from mainspring.operations.answer_judging import judge_answers

    found = judge_answers(call.project, answers, judge, window=window, most=most)

    def show(console: Console) -> None:
        mean = "" if found.mean is None else f", {found.mean:.0%} of them supported"
        console.print(f"{found.judged:,} answers judged{mean}; {found.unjudged:,} could not be.", highlight=False)

    call.result(to_builtins(found), show)
