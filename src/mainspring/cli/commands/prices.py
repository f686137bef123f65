"""`mainspring prices`: prices of machines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.help import Group
from mainspring.cli.tables import figure, show_records

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.cost.catalogue.offers import Offer

_FORMATS = ("aws", "azure", "google", "catalogue")
_SORTS = ("on_demand", "spot", "one_year", "three_years", "block", "memory_gib", "vcpus", "gpus")


@click.group("prices", cls=Group)
def command() -> None:
    """Prices of machines: the shipped list, providers' own files, and this machine's."""


@make("list", reads_only=True)
@click.option("--provider", help="aws, azure or google.")
@click.option("--region", help="The provider's name of it, such as eu-west-1.")
@click.option("--gpu", help="Kind of GPU, such as L4; any, or none.")
@click.option("--memory", type=float, default=0.0, help="GiB, at least.")
@click.option("--vcpus", type=int, default=0, help="Virtual cores, at least.")
@click.option("--sort", type=click.Choice(_SORTS), default="on_demand", show_default=True, help="Smallest first.")
@click.option("--limit", type=click.IntRange(1), default=30, show_default=True)
def list_(
    call: Call,
    *,
    provider: str | None,
    region: str | None,
    gpu: str | None,
    memory: float,
    vcpus: int,
    sort: str,
    limit: int,
) -> None:
    """List machines with their prices of an hour. A price that nobody stated is unknown."""
    from mainspring.operations.prices import list_offers

    found = list_offers(
        call.project, provider=provider, region=region, gpu=gpu, memory_gib=memory, vcpus=vcpus, sort=sort, limit=limit
    )

    def show(console: Console) -> None:
        if not found.offers:
            console.print("No listed machine has all of that: ask for less.")
            return
        rows = [
            (each.name, str(each.vcpus or ""), f"{each.memory_gib or 0:g}", _gpus(each), each.currency,
             _amount(each.on_demand), _amount(each.spot), _amount(each.one_year), _amount(each.three_years), each.date)
            for each in found.offers
        ]  # fmt: skip
        names = ("machine", "vCPUs", "GiB", "GPUs", "", "on demand", "spot", "1 year", "3 years", "date")
        show_records(console, names, rows, right=("vCPUs", "GiB", "on demand", "spot", "1 year", "3 years"))
        more = f"; --limit {found.of} shows all" if len(found.offers) < found.of else ""
        console.print(f"{len(found.offers)} of {found.of} machines, prices of an hour{more}.", style="dim")
        _warn(call, found.warnings)

    call.result(found, show)


@make("show", reads_only=True)
@click.argument("machine", required=False, metavar="[PROVIDER/REGION/INSTANCE]")
def show_(call: Call, *, machine: str | None) -> None:
    """Show a machine's price and those of its parts; by default this machine's, by the profile."""
    from mainspring.operations.prices import show_price

    found = show_price(call.project, machine)

    def show(console: Console) -> None:
        size = f"{found.cores:g} cores, {found.memory_gib:.1f} GiB" + (
            f", {found.gpus} x {found.gpu}" if found.gpus else ""
        )
        console.print(f"{found.name}: {size}", markup=False)
        if found.offer is not None:
            prices = {"on demand": found.offer.on_demand, "spot": found.offer.spot, "1 year": found.offer.one_year,
                      "3 years": found.offer.three_years, "block": found.offer.block}  # fmt: skip
            said = ", ".join(f"{name} {_amount(price)}" for name, price in prices.items())
            if found.offer.low is not None and found.offer.high is not None:
                said += f" (on demand between {figure(found.offer.low)} and {figure(found.offer.high)})"
            console.print(f"  list      {said} {found.offer.currency} an hour", markup=False)
        if (rates := found.rates) is not None:
            console.print(f"  machine   {figure(rates.machine_hour, 6)} {rates.currency} an hour", markup=False)
            console.print(f"  a core    {figure(rates.cpu_hour, 6)}", markup=False)
            console.print(f"  a GiB     {figure(rates.memory_gib_hour, 6)}", markup=False)
            if rates.gpu_hour:
                console.print(f"  a GPU     {figure(rates.gpu_hour, 6)}", markup=False)
            for name, price in sorted(rates.storage_gib_month.items()):
                console.print(f"  storage   {name} {figure(price, 6)} a GiB and month", markup=False)
            if rates.out_gib:
                console.print(f"  transfer  {figure(rates.out_gib, 6)} a GiB to the internet", markup=False)
            console.print(f"  source    {rates.source}{f', {rates.as_of}' if rates.as_of else ''}", markup=False)
        _warn(call, found.warnings)

    call.result(found, show)


@make("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(_FORMATS), required=True, help="Whose file it is.")
@click.option("--region", "regions", multiple=True, help="Keep only offers in this region; repeatable.")
def import_(call: Call, *, file: Path, kind: str, regions: tuple[str, ...]) -> None:
    """Take the prices of a provider's own file: EC2's index.csv or index.json, Azure's retail prices, Google's SKUs.

    The file is read once, whatever its size. Rows about other things than machines are counted.
    """
    from mainspring.operations.prices import import_prices

    with call.progress() as progress:
        report = import_prices(
            call.project, file, kind, regions, lambda done, total: progress.update(f"reading {file.name}", done, total)
        )

    def show(console: Console) -> None:
        console.print(
            f"{report.file}: {report.kept:,} prices of machines in {report.currency}, of {report.read:,} rows; "
            f"{report.others:,} are about other things.",
            markup=False,
        )
        for why, count in sorted(report.not_understood.items()):
            console.print(f"Not understood: {count:,} rows, {why}.", style="yellow", markup=False)
        for example in report.examples:
            console.print(f"  {example}", style="dim", markup=False)

    call.result(report, show)


def _gpus(offer: Offer) -> str:
    return f"{offer.gpus} x {offer.gpu}" if offer.gpus else ""


def _amount(price: float | None) -> str:
    return "unknown" if price is None else figure(price)


def _warn(call: Call, warnings: list[str]) -> None:
    for each in warnings:
        call.say(each, style="yellow", markup=False)


for _command in (list_, show_, import_):
    command.add_command(_command)
