"""What `--help` shows: a command's own options before those that every command has, examples, whole sentences."""

from __future__ import annotations

import click

SHARED = ("json_", "project", "profile", "debug", "_click_default_help", "help")


def examples(context: click.Context) -> tuple[str, ...]:
    """Return what somebody types to use a command, each a whole line."""
    from mainspring.cli.examples import EXAMPLES

    program, _, name = context.command_path.partition(" ")
    return tuple(f"{program} {example}" for example in EXAMPLES.get(name, ()))


class Command(click.Command):
    """A command whose help ends with examples."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                (shared if parameter.name in SHARED else own).append(record)
        for title, records in (("Options", own), ("Options of every command", shared)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        if lines := examples(ctx):
            with formatter.section("Examples" if len(lines) > 1 else "Example"):
                for line in lines:  # whole, to be copied: it is not wrapped
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Group(click.Group):
    """Commands that belong together, each with the whole first sentence of its help."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=10_000)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
