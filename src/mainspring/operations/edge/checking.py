"""Checks of a package, or of a version that may become one, before it goes to devices."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mainspring.core.errors import Invalid, MainspringError, NotFound
from mainspring.deploy.edge.building import program_for
from mainspring.deploy.edge.converting import in_onnx
from mainspring.deploy.edge.package import FEATURES, GOLDEN, INDEX, MODEL, SKETCH, read_package, write_package
from mainspring.operations.edge.building import AUTO, expect_tolerance, packed
from mainspring.operations.edge.int8 import Int8
from mainspring.operations.findings import Finding, well
from mainspring.operations.models.cards import personal
from mainspring.operations.models.curating import expect_kept, find
from mainspring.project import Project
from mainspring.registry.model import Bundle
from mainspring.security.signing import SigningKey

T = TypeVar("T")

_LONGEST_S = 120.0
# Loads a package as a device does, tests it on its golden rows, and prints the peak of its memory in kilobytes.
_TRY = """
import sys
try:
    import mainspring_edge
except ModuleNotFoundError:
    sys.exit(3)
try:
    mainspring_edge.load(sys.argv[1], sys.argv[2]).self_test()
except mainspring_edge.EdgeError as error:
    sys.exit(str(error))
try:
    with open("/proc/self/status", encoding="ascii") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
except (OSError, StopIteration):
    print(0)
"""
_NOT_INSTALLED = 3


@dataclass(frozen=True, slots=True)
class CheckedPackage:
    """A package, or a version that could become one.

    Attributes:
        version: Its number.
        package: The folder, empty for a version that is only asked about.
        well: Whether every finding is.
        inputs: What a row holds: name -> type.
        stored: The stored features among them, whose values come with each row.
        personal: Columns of the model whose values identify a person.
        bytes: Size of its files.
        memory_bytes: Peak of a process that loads it and computes its golden rows; `None` where it is not known.
        golden_rows: Rows that a device has to reproduce.
        int8: The verdict on INT8 for a version that could become a package.
    """

    name: str
    version: str
    package: str
    well: bool
    findings: tuple[Finding, ...]
    precision: str = ""
    tolerance: float = 0.0
    inputs: Mapping[str, str] = field(default_factory=dict)
    stored: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()
    bytes: int = 0
    model_bytes: int = 0
    memory_bytes: int | None = None
    golden_rows: int = 0
    int8: Int8 | None = None


def check_package(
    project: Project, target: str, *, precision: str = AUTO, tolerance: float | None = None
) -> CheckedPackage:
    """Return what is found about a package's folder, or about a version, which is built in memory only.

    Args:
        precision: That of a version's package, as in `build_package`.
        tolerance: Largest difference that INT8 may make in a version; by default the bundle's own.

    Raises:
        Invalid: The tolerance is no positive number, or it or a precision is given for a package.
        NotFound: There is no such package or version.
        Corrupt: A file of the package was changed, or another key signed it.
    """
    folder = Path(target)
    if not (folder / INDEX).exists() and os.sep not in target:
        expect_tolerance(tolerance)
        return _version(project, target, precision, tolerance)
    files = read_package(folder, project.signing_key.public)
    if precision != AUTO or tolerance is not None:
        raise Invalid("A package has its precision.", fix="give --precision and --tolerance with a version.")
    about = msgspec.json.decode(files[INDEX])
    try:
        bundle = project.bundles.load(about["bundle"])
    except NotFound:
        bundle = None
    signed = well("signature", f"This project's key signed it, and its {len(files) - 2} files are as signed.")
    return _checked(str(folder), about, files, _tried(folder, project.signing_key.public), bundle, [signed])


def _version(project: Project, reference: str, precision: str, tolerance: float | None) -> CheckedPackage:
    version = find(project, reference)
    name = f"{version.model}:{version.version}"
    bundle = project.bundles.load(version.digest)
    findings: list[Finding] = []
    flavour = bundle.manifest.flavour
    said = "It is ONNX." if flavour == "onnx" else f"Its trees of {flavour} become ONNX, within the tolerance."
    _attempt(findings, "version", "", lambda: expect_kept(project, version))
    converted = _attempt(findings, "model", said, lambda: in_onnx(bundle, name))
    _attempt(findings, "features", "", lambda: program_for(bundle, stored_as_inputs=True))
    made = None
    if converted is not None and all(each.ok for each in findings):
        declared = project.definitions.models.get(version.model)
        pack = partial(packed, converted, declared, precision, tolerance, stored_as_inputs=True)
        made = _attempt(findings, "package", "", pack)
    if converted is None or made is None:
        return CheckedPackage(version.model, version.version, "", False, tuple(findings))
    content, int8 = made
    if int8 is not None:
        kept = "" if int8.allowed else "FP32 is kept. "
        findings.append(well("int8", kept + int8.detail(len(converted.files[MODEL]))))
    about = {**content.about, "version": int(version.version)}
    with tempfile.TemporaryDirectory(prefix="mainspring-edge-") as place:
        key = SigningKey(os.urandom(32))
        index = write_package(Path(place) / "package", about, content.files, key)
        tried = _tried(Path(place) / "package", key.public)
    files = {**content.files, INDEX: index}
    return replace(_checked("", msgspec.json.decode(index), files, tried, bundle, findings), int8=int8)


def _attempt(findings: list[Finding], check: str, said: str, make: Callable[[], T]) -> T | None:
    """Return what is made; `None`, and a finding, where that is refused."""
    try:
        made = make()
    except MainspringError as error:
        findings.append(Finding(check=check, ok=False, detail=error.what, fix=error.fix or ""))
        return None
    if said:
        findings.append(well(check, said))
    return made


def _checked(
    package: str,
    about: Mapping[str, Any],
    files: Mapping[str, bytes],
    tried: tuple[Finding, int | None],
    bundle: Bundle | None,
    before: list[Finding],
) -> CheckedPackage:
    golden = msgspec.json.decode(files[GOLDEN])
    rows = sum(len(next(iter(golden[part].values()), ())) for part in ("outputs", "answers"))
    names = frozenset[str]() if bundle is None else personal(bundle) & set(about["columns"])
    findings = [*before, tried[0], private_finding(bundle, names, files, golden)]
    stored = tuple(about["stored"])
    if stored:
        findings.append(
            Finding(
                check="stored features",
                ok=True,
                detail=f"Each row has to bring {', '.join(stored)}.",
                fix="" if package else "build with --stored-as-inputs.",
            )
        )
    return CheckedPackage(
        name=about["name"],
        version=str(about["version"]),
        package=package,
        well=all(each.ok for each in findings),
        findings=tuple(findings),
        precision=about["precision"],
        tolerance=about["tolerance"],
        inputs=msgspec.json.decode(files[FEATURES])["inputs"],
        stored=stored,
        outputs=tuple(each["name"] for each in about["model"]["outputs"]),
        personal=tuple(sorted(names)),
        bytes=sum(map(len, files.values())),
        model_bytes=len(files[MODEL]),
        memory_bytes=tried[1],
        golden_rows=rows,
    )


def _tried(folder: Path, public: bytes) -> tuple[Finding, int | None]:
    """Return how a device's runtime, in a process of its own, does on the golden rows, and its memory."""
    command = [sys.executable, "-c", _TRY, str(folder), public.hex()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return Finding(check="golden rows", ok=False, detail=f"They are not computed within {_LONGEST_S:.0f} s."), None
    if done.returncode == _NOT_INSTALLED:
        missing = "They were not computed: the device's runtime is not installed here."
        return Finding(check="golden rows", ok=True, detail=missing, fix="pip install mainspring-edge"), None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason"]
        return Finding(check="golden rows", ok=False, detail=lines[-1][:300], fix="do not roll it out."), None
    return well("golden rows", "The device's runtime computes them on this machine."), int(done.stdout) * 1024 or None


def private_finding(
    bundle: Bundle | None, names: frozenset[str], files: Mapping[str, bytes], golden: Mapping[str, Any]
) -> Finding:
    """Return whether values of personal columns are in the package."""
    check = "personal columns"
    if bundle is None:
        unknown = "They are not known: this project does not have the package's bundle."
        return Finding(check=check, ok=True, detail=unknown, fix="check it where it was built.")
    if not names:
        return well(check, "The model takes none.")
    found = ["the golden rows are held-out rows"] if golden["columns"] else []
    columns = msgspec.json.decode(files[SKETCH])["columns"] if SKETCH in files else []
    found += [
        f"the sketch has bins of {each['name']}"
        for each in columns
        if each["name"] in names and each["kind"] != "hidden"
    ]
    for column in bundle.manifest.inputs:
        known = [text for text in column.categories if len(text) > 2 and text.encode() in files[MODEL]]
        if column.name in names and known:
            found.append(f"the model holds {len(known):,} texts of {column.name}")
    if found:
        fix = f"train the model without {', '.join(sorted(names))}."
        return Finding(check=check, ok=False, detail=f"Values would leave: {'; '.join(found)}.", fix=fix)
    return well(check, f"No value of {', '.join(sorted(names))} is in the package.")
