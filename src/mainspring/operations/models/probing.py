"""Probe of a model in a separate process, so that a crash, a hang or memory exhaustion stays contained.

`python -m mainspring.operations.models.probing --project ROOT [--profile P] --folder FOLDER`: reads the draft in the
folder, runs it like the gateway, and writes its inputs, outputs and golden rows there.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core import errors
from mainspring.core.errors import Corrupt, Invalid, MainspringError
from mainspring.core.sandbox import Confinement, Policy, enforce, expanded, policy, set_policy
from mainspring.registry.bundles import GOLDEN
from mainspring.registry.model import Bundle, Manifest, TensorSpec

if TYPE_CHECKING:
    from mainspring.project import Project

LONGEST_S = 120.0
_DRAFT, _RESULT, _SAID = "draft.json", "result.json", "said.txt"
_LARGEST_RESULT, _LAST_BYTES = 1 << 30, 4096
_LEAST_MEMORY = 8 * 1024**3  # address space, which is much larger than the memory used
_PER_BYTE = 16


class Draft(msgspec.Struct, frozen=True):
    """A bundle before it is sealed. The tensors of an ONNX model may still be unknown."""

    manifest: Manifest
    files: tuple[str, ...]
    golden: dict[str, dict[str, Any]] | None = None  # `inputs`, and `outputs` if known


class Probed(msgspec.Struct, frozen=True):
    """Inputs and outputs of a model, as observed."""

    tensors: tuple[TensorSpec, ...] = ()
    output_tensors: tuple[TensorSpec, ...] = ()
    golden: dict[str, dict[str, Any]] = {}
    refused: str = ""
    fix: str | None = None
    error: str = ""  # the kind of refusal


def probe(project: Project, draft: Draft, files: dict[str, bytes], *, longest_s: float = LONGEST_S) -> Probed:
    """Return the model's inputs, outputs and golden rows.

    Raises:
        Invalid: The model cannot predict row by row, fails, or does not respond in time.
        Corrupt: It does not load, crashes, or its results vary.
        MissingExtra: Its runtime is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="mainspring-probe-") as place:
        folder = Path(place)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        (folder / _DRAFT).write_bytes(msgspec.json.encode(draft))
        arguments = ["--project", str(project.settings.root), "--profile", project.settings.profile]
        command = [sys.executable, "-m", "mainspring.operations.models.probing", *arguments, "--folder", place]
        try:
            with (folder / _SAID).open("wb") as said:
                process = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    timeout=longest_s,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            raise Invalid(f"The model did not respond within {longest_s:.0f} s when it was tested.") from None
        result = folder / _RESULT
        if not result.exists() or not result.stat().st_size:
            raise Corrupt(
                f"The model {_ending(process.returncode, folder / _SAID)} when it was tested.",
                fix="export the model again.",
            )
        probed = msgspec.json.decode(result.read_bytes(), type=Probed)
    if probed.refused:
        raise _refusal(probed)
    return probed


def _refusal(found: Probed) -> MainspringError:
    """Return the child's error with the same kind; here a failure of the model is an invalid argument."""
    kind: type[MainspringError] = getattr(errors, found.error, Invalid)
    error = kind.__new__(kind)
    MainspringError.__init__(error, found.refused, fix=found.fix)
    return error


def _ending(code: int, said: Path) -> str:
    if code < 0:
        return f"crashed ({signal.Signals(-code).name})"
    with said.open("rb") as file:
        file.seek(max(0, said.stat().st_size - _LAST_BYTES))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return f"ended with code {code} ({lines[-1][:200] if lines else 'and said nothing'})"


def _draft(folder: Path) -> tuple[Draft, dict[str, bytes]]:
    draft = msgspec.json.decode((folder / _DRAFT).read_bytes(), type=Draft)
    return draft, {name: (folder / name).read_bytes() for name in draft.files}


def _tried(project: Project, draft: Draft, files: dict[str, bytes]) -> Probed:
    from mainspring.operations.models.golden_rows import make_golden
    from mainspring.project.executors import executors
    from mainspring.serving.plane.golden import warm_up

    manifest = draft.manifest
    if manifest.flavour == "onnx" and not manifest.tensors:
        from mainspring.project.executors import describe_onnx

        takes, gives = describe_onnx(files["model.onnx"], manifest.model)
        manifest = msgspec.structs.replace(manifest, tensors=tuple(takes), output_tensors=tuple(gives))
    executor = executors(project)(Bundle(manifest.model, manifest, files))
    golden = draft.golden
    if golden is None or not golden.get("outputs"):
        golden = make_golden(executor, None if golden is None else golden["inputs"])
    # Loaded from the same bytes as in a gateway: each row alone and in a batch, within the tolerance.
    content = msgspec.json.encode(golden)
    warm_up(Bundle(manifest.model, manifest, {**files, GOLDEN: content}), executor)
    return Probed(manifest.tensors, manifest.output_tensors, msgspec.json.decode(content))


def _limit_memory(folder: Path) -> None:
    """Limit the address space, so that an excessive allocation fails instead of exhausting the machine."""
    used = sum(path.stat().st_size for path in folder.iterdir())
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = max(min(physical, max(_LEAST_MEMORY, _PER_BYTE * used)), _LEAST_MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def main() -> None:
    from mainspring.project.settings import child_arguments

    parser = child_arguments("operations.models.probing")
    parser.add_argument("--folder", type=Path, required=True)
    chosen = parser.parse_args()
    _limit_memory(chosen.folder)
    with (chosen.folder / _RESULT).open("wb") as result:  # all that the model can write to
        result.write(msgspec.json.encode(_probed(chosen.project, chosen.profile, chosen.folder)))


def _probed(root: Path, profile: str, folder: Path) -> Probed:
    from mainspring.project import open_project
    from mainspring.project.code_reach import closed_to_code, open_to_code
    from mainspring.project.settings import load_settings

    try:
        project = open_project(load_settings(root, profile))
        draft, files = _draft(folder)
        if draft.manifest.graph is None:  # the parts of a graph were probed, and may come from a store
            known = policy()
            own = expanded(open_to_code(project.settings), closed_to_code(project.settings))
            # Processes of models are confined once more, and cannot list these then.
            set_policy(Policy(known.mode, (*known.reads, *map(str, own))))
            enforce(Confinement(policy(), spawns=True, write_bytes=_LARGEST_RESULT, threads=True))
        return _tried(project, draft, files)
    except MainspringError as error:
        return Probed(refused=error.what, fix=error.fix, error=type(error).__name__)
    except MemoryError:
        return Probed(refused="The model needs more memory than this machine has.", error="Invalid")


if __name__ == "__main__":
    main()
