"""How long does `mainspring --help` take? Against bare Python, a minimal click program, and the peers' command lines.

The runs take turns, and each command's fastest counts: what else the machine does can only add to it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from environments import PEERS
from peers import KNOWN
from report import Case, report

CLICK = """
import click

@click.group()
def main(): "A command line with one command."

@main.command()
def hello(): "Say hello."

main()
"""


def milliseconds(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, float]:
    """Return the shortest time of each command, after one unmeasured run that fills the disk's cache."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            before = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
            if turn:
                times[name].append((time.perf_counter() - before) * 1e3)
    return {name: round(min(measured), 1) for name, measured in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peer-rounds", type=int, default=3)
    arguments = parser.parse_args()

    python = sys.executable
    ours = milliseconds(
        {
            "bare": [python, "-c", "pass"],
            "click": [python, "-c", CLICK, "--help"],
            "import": [python, "-c", "import mainspring"],
            "help": [str(Path(python).with_name("mainspring")), "--help"],
            "version": [str(Path(python).with_name("mainspring")), "--version"],
        },
        arguments.rounds,
    )
    peers: dict[str, float | None] = {}
    notes = {"bare Python": f"{ours['bare']} ms"}
    for name, peer in KNOWN.items():
        if peer.command is None:
            continue
        command = PEERS / name / "bin" / peer.command
        if not command.exists():
            peers[name] = None
            notes[name] = f"not installed here: run `python bench/peers.py {name}`"
            continue
        try:
            peers[name] = milliseconds({name: [str(command), "--help"]}, arguments.peer_rounds)[name]
        except subprocess.CalledProcessError as error:
            peers[name] = None
            notes[name] = f"its --help fails: {error.stderr.decode(errors='replace').strip().splitlines()[-1]}"
    report(
        "cli",
        [
            Case("mainspring --help", "ms", ours["help"], ours["click"], peers, notes),
            Case("mainspring --version", "ms", ours["version"], ours["click"]),
            Case("import mainspring", "ms", ours["import"], ours["bare"]),
        ],
    )


if __name__ == "__main__":
    main()
