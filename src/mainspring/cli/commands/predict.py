"""`mainspring predict`: request a prediction from a running endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mainspring.cli.call import Call
from mainspring.cli.call import command as make

if TYPE_CHECKING:
    from rich.console import Console

_FILE = click.Path(dir_okay=False, path_type=Path)


@make("predict")
@click.argument("endpoint")
@click.argument("fields", nargs=-1, metavar="NAME=VALUE...")
@click.option("--key", help="An API key; by default a new key that expires after a minute.")
@click.option("--cert", type=_FILE, help="A client certificate (PEM), where the gateway requires one.")
@click.option("--cert-key", type=_FILE, help="The private key of --cert, if it is in another file.")
@click.option(
    "--ca", type=_FILE, help="Trusted authorities (PEM); by default the gateway's certificate in the profile."
)
def command(
    call: Call,
    *,
    endpoint: str,
    fields: tuple[str, ...],
    key: str | None,
    cert: Path | None,
    cert_key: Path | None,
    ca: Path | None,
) -> None:
    """Request one prediction from ENDPOINT, by entity keys and request fields: `flight=... origin=EWR`. A tensor is a
    JSON list of one row's values, `image='[[0.1, 0.2], [0.3, 0.4]]'`, or a file with one, `image=@image.json`.
    """
    from mainspring.client.certificates import Certificates
    from mainspring.operations.predict import ask
    from mainspring.project.running import where_up

    pairs = dict(_pair(field) for field in fields)
    answer = ask(call.project, endpoint, pairs, key, Certificates(ca=ca, cert=cert, key=cert_key))

    def show(console: Console) -> None:
        for name, value in answer.outputs.items():
            console.print(f"{name}: [bold]{value:.4f}[/]" if isinstance(value, float) else f"{name}: {value}")
        said = f"{answer.model} version {answer.version} · {answer.milliseconds:.1f} ms"
        console.print(f"{said} · an earlier answer" if answer.cached else said, style="dim")
        console.print(f"{where_up(call.project.settings).control.url}/predictions/{answer.prediction_id}", style="dim")

    call.result(answer, show)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE.")
    return name, value
