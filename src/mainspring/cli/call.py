"""Frame of every command: its four options, its project, its one result, its errors."""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from mainspring.cli import exits
from mainspring.cli.completing import complete_names
from mainspring.cli.help import Command
from mainspring.cli.stdout_redirect import apart
from mainspring.cli.waiting import Waiting
from mainspring.core.errors import MainspringError, MissingExtra, StorageFull
from mainspring.core.memory import NO_MEMORY

if TYPE_CHECKING:
    from rich.console import Console

    from mainspring.cli.progress import Progress
    from mainspring.project import Project


def _signed_in(project: Project) -> str:
    from mainspring.operations.signing_in import person

    return person(project)


@dataclass
class Call:
    """One run of one command."""

    json: bool
    folder: Path | None
    profile: str | None
    debug: bool
    overrides: dict[str, Any] = field(default_factory=dict)
    reads_only: bool = False
    restores: bool = False
    answered: bool = False  # True once the JSON document is printed
    output: TextIO | None = None  # destination of the document if standard output is redirected
    waiting: Waiting | None = None

    @functools.cached_property
    def console(self) -> Console:
        """Console for people: standard error if standard output is a document, else standard output."""
        from rich.console import Console

        self.heard()
        console = Console(stderr=self.json, highlight=False, soft_wrap=False)
        if not console.is_terminal:
            console.width = 200  # a file or a pipe has no width at which ids would be cut
        return console

    @functools.cached_property
    def project(self) -> Project:
        """The project in `--project`, or in or above the current folder.

        Raises:
            NotFound: There is none.
        """
        from mainspring.core.errors import NotFound
        from mainspring.project import open_project
        from mainspring.project.restoring import read_restoring
        from mainspring.project.settings import find_project, load_settings

        if self.folder is not None and not self.folder.is_dir():
            raise NotFound(f"There is no folder {self.folder}.", fix="name the project's folder with --project.")
        os.umask(0o077)  # from here on this process and its children write state files, which only the owner may read
        root = find_project(self.folder or Path.cwd())
        settings = load_settings(root, self.profile, self.overrides)
        project = open_project(settings, reads_only=self.reads_only, restores=self.restores)
        if self.reads_only and (mark := read_restoring(settings.state)) is not None:
            self.heard()
            click.echo(f"Warning: {mark.what}.\n  Fix: {mark.fix}.", err=True)
        if project.settings.sign_in is not None:
            from mainspring.registry.processes import work_as

            work_as(lambda: _signed_in(project))
        return project

    def heard(self) -> None:
        """Remove the waiting indicator, because other output follows."""
        if self.waiting is not None:
            self.waiting.over()

    def say(self, text: str = "", **options: Any) -> None:
        """Print a line for people; with `--json` it goes to standard error."""
        self.console.print(text, **options)

    def result(self, document: Any, show: Callable[[Console], None] | None = None) -> None:
        """End with a result: one JSON document, or what `show` prints."""
        if self.json:
            import msgspec

            self.answered = True
            content = msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=2)
            click.echo(content.decode(), file=self.output)
        elif show is not None:
            show(self.console)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show the progress of long work on standard error: a live bar in a terminal, else one line per stage."""
        from mainspring.cli.progress import Progress

        self.heard()
        with Progress() as progress:
            yield progress


_OPTIONS = (
    click.option("--json", "json_", is_flag=True, help="One JSON document on stdout, all else on stderr."),
    click.option(
        "--project",
        type=click.Path(file_okay=False, path_type=Path),
        help="The project's folder; by default the current folder or one above it.",
    ),
    click.option("--profile", help="The profile in mainspring.toml to use."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)


_TEAM = click.option("--team", metavar="NAME", help="Team that pays; by default the definition's, or your groups.")


def _charged(call: Call, team: str | None, do: Callable[[], int | None]) -> int | None:
    """Do the work of a command, charged to the team that it names."""
    if not team:
        return do()
    from mainspring.operations.cost.teams import named

    with named(call.project, team):
        return do()


def command(
    name: str, *, reads_only: bool = False, restores: bool = False, charges: bool = False, **options: Any
) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a command whose function takes a `Call` first; an int that it returns is the exit code.

    Args:
        reads_only: Whether the command changes nothing that profiles share.
        charges: Whether it begins work that a team pays for, which an option may name.
        restores: Whether it finishes a restore that was interrupted; commands that write refuse to run before.
    """

    def build(function: Callable[..., int | None]) -> click.Command:
        @functools.wraps(function)
        def body(*, json_: bool, project: Path | None, profile: str | None, debug: bool, **arguments: Any) -> None:
            output = apart() if json_ else None
            call = Call(json_, project, profile, debug, reads_only=reads_only, restores=restores, output=output)
            team = arguments.pop("team") if charges else None
            with Waiting(sys.stderr, f"{click.get_current_context().command_path}: at work") as call.waiting:
                code = guarded(call, lambda: _charged(call, team, lambda: function(call, **arguments)))
            if code:
                sys.exit(code)

        decorate: Callable[[Callable[..., Any]], click.Command] = click.command(name, cls=Command, **options)
        made = decorate(body)
        if charges:
            _TEAM(made)
        for option in _OPTIONS:
            option(made)  # after the command's own
        complete_names(made)
        return made

    return build


def guarded(call: Call, body: Callable[[], int | None]) -> int:
    """Run `body`; print an error as one line with its fix, and return the exit code."""
    try:
        return body() or exits.OK
    except click.ClickException:  # wrong usage, which `main` reports
        raise
    except click.Abort:
        refused = MainspringError("Nothing was done, as nobody confirmed it.", fix="answer y; in scripts give --yes.")
        return report(call, refused, exits.INTERRUPTED)
    except KeyboardInterrupt as error:  # a training says where it resumes
        return report(call, MainspringError(f"Interrupted. {error}".rstrip()), exits.INTERRUPTED)
    except Exception as error:
        if call.debug:
            import traceback

            call.heard()
            traceback.print_exc()
        return report(call, _ours(error))


def _ours(error: Exception) -> MainspringError:
    """Translate an exception into a `MainspringError` with a fix."""
    if isinstance(error, MainspringError):
        return error
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("mainspring"):
        return MissingExtra(f"This command (module {error.name!r})", "local")
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in (*NO_MEMORY, "Out of Memory Error")):
        return StorageFull(
            "The command ran out of memory.",
            fix="process less data at a time (--since, fewer rows), or use a machine with more memory.",
        )
    if isinstance(error, OSError):
        return _from_os(error)
    said = " ".join(str(error).split())
    return MainspringError(
        f"Unexpected error: {type(error).__name__}: {said[:500]}",
        fix="run the same command with --debug, and report what it prints.",
    )


def _from_os(error: OSError) -> MainspringError:
    from mainspring.core.errors import Denied, NotFound, Unavailable

    where = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(f"No space left{where}.", fix="free some space and run the command again.")
    if isinstance(error, FileNotFoundError):
        return NotFound(f"There is no{where}.", fix="check the path; it is relative to the current folder.")
    if isinstance(error, NotADirectoryError):
        return NotFound(f"A part of{where} is a file, not a folder.", fix="choose a path whose parents are folders.")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return Denied(
            f"No permission for{where}.", fix="run as the owner of the project's folder, and make the folder writable."
        )
    return Unavailable(f"{error.strerror or error}{where}.")


def report(call: Call, error: MainspringError, code: int | None = None) -> int:
    """Print an error and return the exit code. With `--json` it is the JSON document, unless one was printed."""
    code = exits.exit_code(error) if code is None else code
    call.heard()
    what, fix = _printable(error.what), _printable(error.fix or "")
    if call.json and not call.answered:
        call.result({"error": {"what": what, "fix": fix or error.fix, "retryable": error.retryable, "exit": code}})
    click.echo(f"Error: {what}", err=True)
    if fix:
        click.echo(f"  Fix: {fix}", err=True)
    return code


def _printable(text: str) -> str:
    """Return a text without characters that command a terminal, or that JSON has not: files of others may be quoted."""
    return "".join(each if each.isprintable() or each in "\n\t" else "\N{REPLACEMENT CHARACTER}" for each in text)
