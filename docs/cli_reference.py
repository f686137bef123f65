"""Writes docs/reference/cli.md from the commands themselves: `python docs/cli_reference.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from mainspring.cli.help import SHARED, examples
from mainspring.cli.main import COMMANDS, cli

PAGE = Path(__file__).parent / "reference" / "cli.md"
_HEAD = """\
# Command line

<!-- Written by docs/cli_reference.py; a test fails where it is not current. -->

Every command takes these, after its name:

| option | what it does |
|---|---|
| `--json` | One JSON document on standard output, all else on standard error; also of an error. Times are RFC 3339. |
| `--project FOLDER` | The project's folder. By default the folder with `mainspring.toml` here or above. |
| `--profile NAME` | The profile in `mainspring.toml`; see [settings](settings.md). |
| `--debug` | The traceback of an error, instead of one line. |
| `-h`, `--help` | The command's help. |

An error's document is `{"error": {"what", "fix", "retryable", "exit"}}`. What a command exits with:
[exit codes](exit-codes.md). Times are ISO 8601 with an offset (`2026-01-31T12:00:00Z`; a date alone is its midnight
UTC), durations a number and a unit (`15m`, `24h`, `30d`, `1h 30m`).
"""


def page() -> str:
    """Return the whole page."""
    context = click.Context(cli, info_name="mainspring")
    parts = [_HEAD]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        parts += _command(command, click.Context(command, context, name), 2)
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{context.command_path}`\n"
    yield f"{_prose(command.help or '')}\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _command(inner, click.Context(inner, context, name), level + 1)
        return
    usage = " ".join(piece for piece in command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```\n"
    options = [each for each in command.params if isinstance(each, click.Option) and each.name not in SHARED]
    if options:
        yield "| option | what it does |\n|---|---|"
        for option in options:
            names, text = option.get_help_record(context) or ("", "")
            yield f"| `{names}` | {text.replace('|', chr(92) + '|')} |"
        yield ""
    if lines := examples(context):
        yield "```text\n" + "\n".join(lines) + "\n```\n"


def _prose(text: str) -> str:
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return "\n\n".join(paragraphs)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
