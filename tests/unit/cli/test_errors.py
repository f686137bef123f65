"""An error names the value and what to do about it."""

from __future__ import annotations

import errno
import sqlite3
from io import StringIO
from pathlib import Path

import click
import pytest
import sqlalchemy as sa

from mainspring.cli import exits
from mainspring.cli.call import Call, guarded
from mainspring.cli.main import run
from mainspring.core.catalog import catalog_errors
from mainspring.core.errors import Denied, Invalid
from mainspring.operations.predict import first_row, tensors
from mainspring.registry.model import UnknownVersion

METADATA = {
    "parameters": {
        "keyed_inputs": [
            {"name": "courier", "datatype": "BYTES", "shape": [-1]},
            {"name": "km", "datatype": "FP32", "shape": [-1]},
            {"name": "at", "datatype": "INT64", "shape": [-1]},
            {"name": "wet", "datatype": "BOOL", "shape": [-1]},
        ],
        "optional_keyed_inputs": ["wet"],
    },
    "inputs": [],
}


@pytest.mark.parametrize(
    ("fields", "what", "fix"),
    [
        ({"km": "far"}, "'km' is 'far', which is not a number", "give km=3.2."),
        ({"at": "today"}, "'at' is 'today', which is not a whole number, or an instant", "2026-01-05T18:30:00Z"),
        ({"wet": "rather"}, "'wet' is 'rather', which is not true or false", "give wet=true."),
    ],
)
def test_a_value_that_does_not_fit_says_what_would(fields: dict[str, str], what: str, fix: str) -> None:
    with pytest.raises(Invalid) as wrong:
        tensors(METADATA, {"courier": "ana", "km": "3", "at": "2026-01-05T18:30:00Z", **fields})
    assert what in wrong.value.what
    assert fix in (wrong.value.fix or "")


def test_fields_that_do_not_fit_are_named_and_only_those() -> None:
    with pytest.raises(Invalid, match=r"do not match: missing: at; unknown: distance\. Fix"):
        tensors(METADATA, {"courier": "ana", "km": "3", "distance": "3"})
    with pytest.raises(Invalid, match=r"do not match: missing: at\. Fix"):
        tensors(METADATA, {"courier": "ana", "km": "3"})


def test_the_fix_gives_required_fields_and_sets_optional_ones_apart() -> None:
    with pytest.raises(Invalid) as wrong:
        tensors(METADATA, {"courier": "ana"})
    assert wrong.value.fix == "give courier=... km=... at=...; optional: wet=..."


def test_a_date_alone_is_its_midnight_as_everywhere() -> None:
    sent = tensors(METADATA, {"courier": "ana", "km": "3", "at": "2026-01-05"})
    assert sent[-1] == {"name": "at", "shape": [1], "datatype": "BYTES", "data": ["2026-01-05"]}


NETWORK = {
    "parameters": {"keyed_inputs": [], "optional_keyed_inputs": []},
    "inputs": [
        {"name": "image", "datatype": "FP32", "shape": [-1, 2, -1]},
        {"name": "small", "datatype": "UINT8", "shape": [-1]},
    ],
}


def test_a_tensor_is_a_json_list_of_one_row_or_a_file_with_it(tmp_path: Path) -> None:
    image = {"name": "image", "shape": [1, 2, 3], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6.5]}
    small = {"name": "small", "shape": [1], "datatype": "UINT8", "data": [7]}
    (tmp_path / "image.json").write_text("[[[1, 2, 3], [4, 5, 6.5]]]")
    for text in ("[[1, 2, 3], [4, 5, 6.5]]", f"@{tmp_path / 'image.json'}"):
        assert tensors(NETWORK, {"image": text, "small": "7"}) == [image, small]
    assert first_row({"shape": [1, 2, 3], "data": image["data"]}) == [[1, 2, 3], [4, 5, 6.5]]
    assert first_row({"shape": [1], "data": [0.5]}) == 0.5
    assert first_row({"shape": [1, 2, 0], "data": []}) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[[1, 2], [3]]", "not a JSON list with rows of equal length"),
        ("1, 2", "not a JSON list"),
        ("[1, 2]", r"the shape \[2\]; a row must have \[2, -1\]"),
        ("[[1], [2], [3]]", r"the shape \[3, 1\]"),
    ],
)
def test_a_tensor_that_does_not_fit_says_what_would(text: str, what: str) -> None:
    with pytest.raises(Invalid, match=what) as wrong:
        tensors(NETWORK, {"image": text, "small": "7"})
    assert (wrong.value.fix or "").startswith("give image='[[1, 2]]', or a file")


@pytest.mark.parametrize(("reference", "shown"), [("9", "late:9"), ("chmpion", "late@chmpion")])
def test_a_version_is_named_as_it_is_written(reference: str, shown: str) -> None:
    unknown = UnknownVersion("late", reference)
    assert (unknown.what, unknown.fix) == (
        f"There is no {shown}.",
        "`mainspring models list late` lists the versions.",
    )


def test_a_database_that_may_only_be_read_is_a_matter_of_rights(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    sqlite3.connect(path).close()
    engine = sa.create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    with (
        pytest.raises(Denied, match="cannot be written") as denied,
        catalog_errors(str(path)),
        engine.connect() as connection,
    ):
        connection.exec_driver_sql("CREATE TABLE one (a INTEGER)")
    engine.dispose()
    assert exits.exit_code(denied.value) == exits.DENIED
    assert "owner" in (denied.value.fix or "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FileNotFoundError(errno.ENOENT, "", "a.csv"), exits.NOT_FOUND, "no a.csv.\n  Fix: check the path"),
        (
            NotADirectoryError(errno.ENOTDIR, "", "a/b"),
            exits.NOT_FOUND,
            "a/b is a file, not a folder.\n  Fix:",
        ),
        (MemoryError(), exits.FULL, "The command ran out of memory.\n  Fix: process less data"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), exits.FULL, "ran out of memory."),
        (RuntimeError("Out of Memory Error: Failed to allocate"), exits.FULL, "ran out of memory."),
        (ImportError("x.so: failed to map segment from shared object"), exits.FULL, "ran out of memory."),
    ],
)
def test_what_the_system_refuses_has_a_fix(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        raise error

    assert guarded(Call(json=False, folder=None, profile=None, debug=False), body) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("json", [False, True])
def test_what_an_error_quotes_commands_no_terminal(json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        raise Invalid("The key \x1b]0;title\x07\r\u202e is wrong,\nand \udcff.", fix="see \x9b2J.")

    guarded(Call(json=json, folder=None, profile=None, debug=False, output=StringIO()), body)
    assert capsys.readouterr().err.splitlines() == [
        "Error: The key \ufffd]0;title\ufffd\ufffd\ufffd is wrong,",
        "and \ufffd.",
        "  Fix: see \ufffd2J.",
    ]


@pytest.mark.parametrize(("typed", "said"), [("trian", "Did you mean 'train'?"), ("zzz", "There are demo, init")])
def test_no_such_command_names_what_there_is(typed: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([typed]) == exits.USAGE
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_interruption_says_what_it_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*said: str) -> int:
        raise KeyboardInterrupt(*said)

    call = Call(json=False, folder=None, profile=None, debug=False)
    assert guarded(call, interrupted) == guarded(call, lambda: interrupted("Step 3 is kept.")) == exits.INTERRUPTED
    assert capsys.readouterr().err.splitlines() == ["Error: Interrupted.", "Error: Interrupted. Step 3 is kept."]


def test_a_question_that_nobody_answers_is_no_defect(capsys: pytest.CaptureFixture[str]) -> None:
    def ask() -> None:
        raise click.Abort

    assert guarded(Call(json=False, folder=None, profile=None, debug=False), ask) == exits.INTERRUPTED
    told = capsys.readouterr().err
    assert "nobody confirmed it" in told
    assert "--yes" in told
