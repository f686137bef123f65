"""What does an installation cost? Packages, megabytes and seconds, in a fresh virtual environment each.

The floor of `[gateway]` is the libraries without which no ONNX model is served: a server and a runtime. Megabytes are
the files' sizes without compiled Python, seconds hold the download. What the peers took was measured by
`bench/peers.py`, with the same tool and options.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from environments import PEERS, ROOT, Installed, create, find_uv, recorded
from report import Case, report

EXTRAS = {
    "mainspring": "",
    "mainspring[gateway]": "[gateway]",
    "mainspring[local]": "[local]",
    "mainspring[all]": "[all]",
}
FLOOR = {"mainspring[gateway]": ("httptools", "onnxruntime")}
SERVING = ("litserve", "bentoml", "mlserver")
PLATFORMS = ("feast", "mlflow", "feast+mlflow+bentoml")
AGAINST = {
    "mainspring": (),
    "mainspring[gateway]": SERVING,
    "mainspring[local]": PLATFORMS,
    "mainspring[all]": PLATFORMS,
}


def build(folder: Path) -> Path:
    """Build our wheel into `folder` and return it."""
    uv = find_uv()
    if uv:
        command = [uv, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)]
    else:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("mainspring-*.whl"))


def cases(name: str, ours: Installed, floor: Installed | None, peers: Mapping[str, Installed | None]) -> list[Case]:
    notes = {peer: f"not installed here: run `python bench/peers.py {peer}`" for peer in peers if not peers[peer]}
    if floor is None:
        notes["floor"] = "only [gateway] has one: what it must hold to serve an ONNX model"
    return [
        Case(
            name,
            unit,
            getattr(ours, what),
            getattr(floor, what) if floor else None,
            {peer: getattr(installed, what) if installed else None for peer, installed in peers.items()},
            notes,
        )
        for what, unit in (("packages", "packages"), ("megabytes", "MB"), ("seconds", "s"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(EXTRAS), action="append", help="measure only this")
    arguments = parser.parse_args()
    measured: list[Case] = []
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder))
        for name in arguments.only or EXTRAS:
            ours = create(Path(folder) / "ours", [f"mainspring{EXTRAS[name]} @ {wheel.as_uri()}"])
            floor = create(Path(folder) / "floor", FLOOR[name]) if name in FLOOR else None
            measured += cases(name, ours, floor, {peer: recorded(PEERS / peer) for peer in AGAINST[name]})
    report("install", measured)


if __name__ == "__main__":
    main()
