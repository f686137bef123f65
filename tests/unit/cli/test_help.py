"""`--help`: examples that parse, a command's own options first, whole sentences."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mainspring.cli.help import EXAMPLES
from mainspring.cli.main import COMMANDS, cli


def leaves() -> Iterator[tuple[str, click.Command]]:
    """Return every command that does something, by its name as it is typed."""
    top = click.Context(cli, info_name="mainspring")
    for name in COMMANDS:
        command = cli.get_command(top, name)
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", each) for inner, each in command.commands.items())
        elif command is not None:
            yield name, command


LEAVES = dict(leaves())


def shown(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    cli.main([*arguments, "--help"], prog_name="mainspring", standalone_mode=False)
    return capsys.readouterr().out


def test_every_command_has_an_example_and_no_other() -> None:
    assert sorted(EXAMPLES) == sorted(LEAVES), "an example of each command is in cli/examples.py"


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_calls_of_the_command(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("graph.json").touch()
    for example in EXAMPLES[name]:
        words = shlex.split(example)
        depth = len(name.split())
        assert " ".join(words[:depth]) == name
        LEAVES[name].make_context(name, words[depth:]).close()


def test_a_call_that_is_none_does_not_parse() -> None:
    with pytest.raises(click.UsageError):
        LEAVES["train"].make_context("train", [])


def test_help_ends_with_the_example_whole(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown("models", "trust", capsys=capsys)
    assert said.endswith(f"\nExamples:\n  mainspring models trust\n  mainspring {EXAMPLES['models trust'][1]}\n")


def test_a_commands_own_options_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown("train", capsys=capsys)
    places = [said.index(f"\n  {text}") for text in ("--since", "--until", "--json", "--project", "--debug")]
    assert places == sorted(places)
    assert said.index("Options of every command:") < said.index("--json")


def test_a_group_shows_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown("models", capsys=capsys)
    assert "..." not in said.partition("Commands:")[2]
    assert (
        "Show the lineage of a version: run, data, features, code, author, and the versions it is made of."
        in " ".join(said.split())
    )
