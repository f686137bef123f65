"""`mainspring-edge`: check a package on this device, and predict rows with it."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from mainspring_edge import fleet_cli
from mainspring_edge.errors import EdgeError, InvalidRow, Refused
from mainspring_edge.runtime import Device, load

REFUSED, WRONG = 1, 2  # exit codes
_AT_ONCE = 256  # rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see README.md."""
    parser = argparse.ArgumentParser("mainspring-edge", description="Check and use a signed edge package.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="verify the signature and every file, and compute the golden rows")
    predict = commands.add_parser("predict", help="predict rows: JSON objects, one a line, in and out")
    for each in (check, predict):
        each.add_argument("package", type=Path, help="the package's folder")
        each.add_argument("--key", required=True, help="the trusted public key: 64 hexadecimal digits, or @FILE")
        each.add_argument("--name", help="refuse a package of another model")
    check.add_argument("--json", action="store_true", help="print one JSON document")
    predict.add_argument("rows", nargs="?", default="-", help="file with the rows; - is standard input")
    fleet_cli.add_commands(commands)
    given = parser.parse_args(arguments)
    try:
        if given.command in ("key", "run"):
            return fleet_cli.print_key(given) if given.command == "key" else fleet_cli.run(given)
        device = load(given.package, _key(given.key), name=given.name)
        if given.command == "predict":
            return _predict(device, given.rows)
        device.self_test()
    except EdgeError as error:
        _say(str(error))
        return WRONG if isinstance(error, InvalidRow) else REFUSED
    _show(device, as_json=given.json)
    return 0


def _key(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise Refused("key", f"The key's file {given[1:]} cannot be read: {error}.") from None


def _show(device: Device, *, as_json: bool) -> None:
    if as_json:
        about = {"name": device.name, "version": device.version, "inputs": device.inputs, "outputs": device.outputs}
        print(json.dumps(about))
        return
    inputs = ", ".join(f"{name} ({dtype})" for name, dtype in device.inputs.items())
    print(f"{device.name} version {device.version}: signature, files and golden rows are right on this device.")
    print(f"inputs: {inputs}\noutputs: {', '.join(device.outputs)}")


def _predict(device: Device, path: str) -> int:
    if path == "-":
        return _lines(device, sys.stdin)
    try:
        with Path(path).open(encoding="utf-8") as file:
            return _lines(device, file)
    except OSError as error:
        _say(f"{path} cannot be read: {error.strerror}.")
        return WRONG


def _lines(device: Device, file: TextIO) -> int:
    rows: list[Any] = []
    for number, line in enumerate(file, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            row = error
        if not isinstance(row, dict):
            _write(device, rows)
            _say(f"Line {number} is not a JSON object: {line.strip()[:80]!r}.")
            return WRONG
        rows.append(row)
        if len(rows) == _AT_ONCE:
            _write(device, rows)
            rows = []
    _write(device, rows)
    return 0


def _write(device: Device, rows: Sequence[Any]) -> None:
    answers = device.predict(rows)
    for values in zip(*answers.values(), strict=True):
        print(json.dumps({name: _finite(value) for name, value in zip(answers, values, strict=True)}))


def _finite(value: Any) -> Any:
    """Return the value for JSON, which has no NaN and no infinity: null."""
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _say(text: str) -> None:
    print(f"mainspring-edge: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
