"""`mainspring edge`: packages for devices without servers, and the page of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli import exits
from mainspring.cli.call import Call
from mainspring.cli.call import command as make
from mainspring.cli.commands.doctor import show_findings
from mainspring.cli.commands.edge_fleet import COMMANDS
from mainspring.cli.help import Group

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.operations.edge.building import BuiltPackage
    from mainspring.operations.edge.checking import CheckedPackage

_FOLDER = click.Path(file_okay=False, path_type=Path)
_PRECISION = click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "int8"]),
    default="auto",
    show_default=True,
    help="auto: INT8 where the model's gates and the tolerance allow it, else FP32. int8: INT8, or an error.",
)
_TOLERANCE = click.option(
    "--tolerance", type=float, help="Largest difference that INT8 may make; by default the bundle's own."
)


@click.group("edge", cls=Group)
def command() -> None:
    """Packages for devices: build, publish, roll out by rings; the fleet."""


@make("build")
@click.argument("reference", metavar="NAME[@ALIAS|:VERSION]")
@click.option("--to", "folder", type=_FOLDER, required=True, help="The package's folder, new or empty.")
@_PRECISION
@_TOLERANCE
@click.option("--stored-as-inputs", is_flag=True, help="Features that need the store become inputs of each row.")
@click.option("--endpoint", help="Endpoint that devices predict for; by default the one that serves the model.")
def build(
    call: Call,
    *,
    reference: str,
    folder: Path,
    precision: str,
    tolerance: float | None,
    stored_as_inputs: bool,
    endpoint: str | None,
) -> None:
    """Write the signed edge package of a version into a new folder."""
    from mainspring.operations.edge.building import build_package

    made = build_package(
        call.project,
        reference,
        folder,
        precision=precision,
        tolerance=tolerance,
        stored_as_inputs=stored_as_inputs,
        endpoint=endpoint,
    )
    call.result(made, lambda console: _show(console, made))


def _show(console: Console, made: BuiltPackage) -> None:
    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    inputs = ", ".join(f"{name} ({dtype})" for name, dtype in made.inputs.items())
    line(f"{made.model}:{made.version} is in {made.folder}: {made.precision.upper()}, {made.bytes:,} bytes.")
    line(f"Inputs of a row: {inputs}")
    line(f"Predictions of devices are logged under the endpoint {made.endpoint}.")
    if made.stored:
        line(f"Stored features that each row has to bring: {', '.join(made.stored)}")
    int8 = made.int8
    if int8 is not None:
        line(("" if int8.allowed else "FP32 was kept. ") + int8.detail(made.fp32_bytes))
    for gate in () if int8 is None else int8.gates:
        line(f"  {gate}")
    line(f"{made.golden_rows:,} golden rows. On the device: mainspring-edge check {made.folder} --key {made.key}")


@make("check", reads_only=True)
@click.argument("target", metavar="PACKAGE|NAME[@ALIAS|:VERSION]")
@_PRECISION
@_TOLERANCE
def check(call: Call, *, target: str, precision: str, tolerance: float | None) -> int:
    """Check a package, or a version as one, before it is rolled out; exit with 13 if there is a problem.

    A package: its signature and files, its golden rows on this machine, its size and memory, what each row has to
    bring, and whether values of personal columns are in it. A version: the same, built in memory with the precision
    and tolerance of `build`, with the verdict on INT8, or why it cannot be.
    """
    from mainspring.operations.edge.checking import check_package

    found = check_package(call.project, target, precision=precision, tolerance=tolerance)
    call.result(found, lambda console: _show_checked(console, found))
    return exits.OK if found.well else exits.UNHEALTHY


def _show_checked(console: Console, found: CheckedPackage) -> None:
    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    show_findings(console, found.findings)
    for gate in () if found.int8 is None else found.int8.gates:
        line(f"  {gate}")
    if found.inputs:
        memory = "" if found.memory_bytes is None else f", {found.memory_bytes >> 20:,} MB of memory with the runtime"
        line(f"{found.name}:{found.version}, {found.precision.upper()}: {found.bytes:,} bytes{memory}.")
        line(f"Inputs of a row: {', '.join(f'{name} ({dtype})' for name, dtype in found.inputs.items())}")
        line(f"Outputs: {', '.join(found.outputs)}. {found.golden_rows:,} golden rows, tolerance {found.tolerance:g}.")
    console.print("All is well." if found.well else "Not all is well.", style="bold")


@make("page")
@click.argument("package", type=_FOLDER)
@click.option("--to", "folder", type=_FOLDER, required=True, help="The page's folder, new or empty.")
@click.option(
    "--onnxruntime-web",
    "runtime",
    type=click.Path(exists=True, path_type=Path),
    help="A folder or an archive of npm with onnxruntime-web; by default `npm pack` fetches it.",
)
def page(call: Call, *, package: Path, folder: Path, runtime: Path | None) -> None:
    """Write a static page that verifies a package and predicts in the browser."""
    from mainspring.deploy.edge.web import RELEASE, write_page

    size = write_page(folder, package, call.project.signing_key.public, runtime=runtime)
    call.result(
        {"folder": str(folder), "package": str(package), "bytes": size, "runtime": RELEASE},
        lambda console: console.print(
            f"The page is in {folder}: {size:,} bytes with {RELEASE}. Serve it over HTTPS, or from localhost.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        ),
    )


for each in (build, check, page, *COMMANDS):
    command.add_command(each)
