"""Memory that a bundle takes where it is served, measured in a process of its own.

`python -m mainspring.operations.models.serving_memory --project ROOT [--profile P] --folder FOLDER --rows N`: loads
the bundle in the folder with the gateway's executor, runs one batch of its golden rows, and prints the bytes that took.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.core.errors import Invalid, MainspringError
from mainspring.registry.bundles import MANIFEST
from mainspring.registry.model import Bundle, Manifest

if TYPE_CHECKING:
    from mainspring.project import Project

LONGEST_S = 120.0
_STATUS = Path("/proc/self/status")


def serving_memory(project: Project, bundle: Bundle, rows: int, *, status: Path = _STATUS) -> int:
    """Return how many bytes a bundle takes at most while it is loaded and runs one batch, its runtime included.

    Args:
        status: The file from which Linux tells a process's memory.

    Raises:
        Invalid: It does not load or run, not within two minutes, or this system does not tell a process's memory.
    """
    if not status.exists():
        raise Invalid("This system does not tell how much memory a process takes.", fix="measure on Linux.")
    with tempfile.TemporaryDirectory(prefix="mainspring-memory-") as place:
        for name, content in bundle.files.items():
            (Path(place) / name).write_bytes(content)
        (Path(place) / MANIFEST).write_bytes(msgspec.json.encode(bundle.manifest))
        command = [sys.executable, "-m", __name__, "--project", str(project.settings.root)]
        command += ["--profile", project.settings.profile, "--folder", place, "--rows", str(rows)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
        except subprocess.TimeoutExpired:
            raise Invalid(f"The model did not run within {LONGEST_S:.0f} s.") from None
    if done.returncode or not done.stdout.strip().isdecimal():
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Invalid(f"The model does not run in a process of its own: {lines[-1][:200] if lines else 'no reason'}.")
    return int(done.stdout)


def _kilobytes(field: str) -> int:
    """Return a field of this process's memory, such as `VmRSS`."""
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])


def main() -> None:
    from mainspring.delivery.engine import golden_call
    from mainspring.project import open_project
    from mainspring.project.executors import executors
    from mainspring.project.settings import child_arguments, load_settings

    parser = child_arguments("operations.models.serving_memory")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    chosen = parser.parse_args()
    manifest = msgspec.json.decode((chosen.folder / MANIFEST).read_bytes(), type=Manifest)
    files = {name: (chosen.folder / name).read_bytes() for name in manifest.files}
    bundle = Bundle("", manifest, files)
    try:
        load = executors(open_project(load_settings(chosen.project, chosen.profile)))
        before = _kilobytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak so far
        executor = load(bundle)
        golden_call(bundle, executor, chosen.rows)(0)
        taken = _kilobytes("VmHWM") - before
    except MainspringError as error:
        sys.exit(error.what)
    except (OSError, StopIteration):
        taken = 0
    if taken <= 0:  # a kernel that does not keep the peak
        sys.exit("this system does not tell how much memory a process takes")
    sys.stdout.write(str(taken * 1024))


if __name__ == "__main__":
    main()
