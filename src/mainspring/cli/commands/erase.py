"""`mainspring erase`: erases subjects from every store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.tables import show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.subjects.erasing import Plan
    from mainspring.security.model import Erasure


@make("erase")
@click.argument("entity", required=False)
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--plan", "plan_", is_flag=True, help="Show what would be erased, and change nothing.")
@click.option("--reason", default="", help="Why, for the receipt and the audit log.")
@click.option(
    "--artefacts",
    type=click.Choice(["keep", "delete"]),
    default="keep",
    help="What becomes of files that your code logged with runs and that have the key.",
    show_default=True,
)
@click.option("--again", is_flag=True, help="After a restore: erase those who were erased before and are back.")
def command(
    call: Call, *, entity: str | None, keys: tuple[str, ...], plan_: bool, reason: str, artefacts: str, again: bool
) -> None:
    """Erase subjects, such as a customer, from every store, with a signed receipt.

    KEYs are values of the entity's key, each a subject; of an entity with several keys KEY=VALUE of one subject. The
    tables' older versions go too, so dataset commits and tags that name them can no longer be read.
    """
    from mainspring.core.errors import Invalid
    from mainspring.operations.subjects import erasing, naming

    project = call.project
    if again == bool(entity or keys) or (again and (plan_ or reason)):
        raise Invalid("Name an entity and its keys, or only --again.", fix="write `mainspring erase ENTITY KEY`.")
    if again:
        with call.progress() as progress:
            made, held = erasing.erase_again(project, told=progress.say)
        call.result(_answer(None, made, held), lambda console: show_again(console, len(made), held))
        return
    subjects = naming.find_subjects(project, entity or "", keys)
    if not subjects:
        raise Invalid(f"No {entity} is named.", fix=f"write `mainspring erase {entity} KEY`.")
    if plan_:
        planned = erasing.plan(project, subjects)
        call.result(_answer(planned, ()), lambda console: show_plan(console, planned))
        return
    with call.progress() as progress:
        erasure = erasing.erase(project, subjects, reason=reason, decision=artefacts, told=progress.say)
    document = _answer(None, [erasure])
    call.result(document, lambda console: show_receipt(console, document["receipts"][0]["receipt"]))


def _answer(planned: Plan | None, made: Sequence[Erasure], held: int = 0) -> dict[str, Any]:
    import msgspec

    return {"plan": planned, "receipts": [msgspec.json.decode(each.receipt) for each in made], "held": held}


def show_again(console: Console, repeated: int, held: int) -> None:
    """Print how many erasures were repeated, and how many not because their subjects are held."""
    if held:
        console.print(f"{held} who were erased are back and held: see `mainspring subject holds`.", highlight=False)
    if repeated or not held:
        console.print(f"{repeated} erasures were repeated." if repeated else "Nobody who was erased is back.")


def show_plan(console: Console, planned: Plan) -> None:
    show_records(
        console,
        ("store", "rows", "older", "would be"),
        [(each.store, f"{each.rows:,}", f"{each.past:,}", each.how) for each in planned.held],
    )
    _show_lists(
        console,
        {
            "computed again": planned.rebuilt,
            "commits that can no longer be read": planned.commits,
            "models to decide on": planned.models,
            "artefacts to decide on": planned.artefacts,
            "not reached": planned.outside,
        },
    )


def show_receipt(console: Console, receipt: dict[str, Any]) -> None:
    """Print a receipt for people."""
    rows = [(each["store"], f"{each['rows']:,}", f"{each['past']:,}", each["how"]) for each in receipt["stores"]]
    show_records(console, ("store", "rows", "older", "how"), rows)
    _show_lists(
        console,
        {
            "computed again": receipt["rebuilt"],
            "commits that can no longer be read": receipt["commits_no_longer_readable"],
            "models to decide on": receipt["models_to_decide_on"],
            "artefacts": [f"{each['artefact']}: {each['decision']}" for each in receipt.get("artefacts", ())],
            "not reached": receipt["not_reached"],
            "still in": receipt["still_in"],
        },
    )
    of = f"{len(receipt['subjects'])} of {receipt['entity']}" if receipt["entity"] else receipt["reason"]
    console.print(f"Receipt {receipt['id']}: {of}, {receipt['done_at']}.")


def _show_lists(console: Console, lists: dict[str, list[str]]) -> None:
    for name, entries in lists.items():
        for each in entries:
            console.print(f"{name}: {each}", markup=False)
