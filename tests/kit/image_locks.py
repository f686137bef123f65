"""Locks of images: Debian packages of the base, and wheels, each by its SHA-256.

`python tests/kit/image_locks.py` writes both anew: packages as they are in Debian now, wheels as
`requirements-dev.lock` has them. A test compares the wheels with that file.
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "src" / "mainspring" / "deploy" / "images"
ARCHIVE = "http://deb.debian.org"
SUITES = (("debian", "trixie"), ("debian", "trixie-updates"), ("debian-security", "trixie-security"))
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
PYTHON, ABIS = "3.13", ("cp313", "abi3", "none")
BASE = (
    "base-files", "ca-certificates", "gcc-14-base", "libbz2-1.0", "libc6", "libexpat1", "libffi8", "libgcc-s1",
    "liblzma5", "libpython3.13-minimal", "libpython3.13-stdlib", "libsqlite3-0", "libssl3t64", "libstdc++6", "libuuid1",
    "libzstd1", "python3.13-minimal", "zlib1g",
)  # fmt: skip
EXTRAS = ("awskms", "gateway", "grpc", "lmdb", "local", "objects", "oidc", "otel", "postgres", "redis", "sklearn")


def packages(arch: str) -> dict[str, dict[str, str]]:
    """Return the newest version of each package of the base in Debian stable, with its security updates."""
    found: dict[str, dict[str, str]] = {}
    for archive, suite in SUITES:
        address = f"{ARCHIVE}/{archive}/dists/{suite}/main/binary-{arch}/Packages.xz"
        with urllib.request.urlopen(address, timeout=60) as reply:
            text = lzma.decompress(reply.read()).decode()
        for block in text.split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if re.match(r"[A-Z][\w-]*: ", line))
            name = fields.get("Package", "")
            if name in BASE and (name not in found or _newer(fields["Version"], found[name]["Version"])):
                found[name] = {**fields, "Archive": archive}
    return found


def _newer(one: str, other: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", one, "gt", other], check=False).returncode == 0


def requirements() -> dict[str, tuple[str, set[str]]]:
    """Return name -> (version, SHA-256 of its files), as the lock of development has them."""
    locked = {}
    text = (ROOT / "requirements-dev.lock").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if match := re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*])?==([^ ;]+)", line):
            name = _normal(match[1])
            locked[name] = match[2], set(re.findall(r"sha256:([0-9a-f]{64})", line))
    return locked


def _chosen(names: Iterable[str], locked: dict[str, tuple[str, set[str]]], machine: str) -> dict[str, tuple[str, str]]:
    """Return name -> (file, SHA-256) of the wheel that pip takes for a machine, from where it is configured to."""
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(41, 16, -1)] + [f"manylinux2014_{machine}"]
    if machine == "x86_64":
        platforms += ["manylinux2010_x86_64", "manylinux1_x86_64"]
    with TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        lines = ((name, *locked[name]) for name in names)
        wanted.write_text(
            "".join(
                f"{name}=={version} {' '.join(f'--hash=sha256:{each}' for each in sorted(hashes))}\n"
                for name, version, hashes in lines
            )
        )
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--report", "-", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--python-version", PYTHON]
        command += ["--implementation", "cp", *(part for each in ABIS for part in ("--abi", each))]
        command += [part for each in platforms for part in ("--platform", each)]
        command += ["--target", folder, "--require-hashes", "--requirement", str(wanted)]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found = {}
    for each in told["install"]:
        taken = each["download_info"]
        file = unquote(taken["url"].partition("#")[0].rpartition("/")[2])
        found[_normal(each["metadata"]["name"])] = file, taken["archive_info"]["hashes"]["sha256"]
    return found


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def needed(extra: str, machine: str) -> Iterator[str]:
    """Yield the names of the distributions that the package needs with an extra, its own excluded."""
    from importlib.metadata import requires

    place = {"python_version": "3.13", "python_full_version": "3.13.5", "sys_platform": "linux"}
    place |= {"platform_machine": machine, "platform_system": "Linux", "implementation_name": "cpython"}
    seen = set[tuple[str, str]]()
    waiting = [("mainspring", ""), ("mainspring", extra)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for each in map(Requirement, requires(name) or []):
            if each.marker is None or each.marker.evaluate({**place, "extra": wanted}):
                other = _normal(each.name)
                waiting += [(other, ""), *((other, more) for more in each.extras)]
    yield from sorted({name for name, _ in seen} - {"mainspring"})


def wheels() -> Iterator[tuple[str, str, str, str, str, list[str]]]:
    """Yield architecture, name, version, file and SHA-256 of each wheel, with the extras that need it."""
    locked = requirements()
    for arch, machine in MACHINES.items():
        extras: dict[str, list[str]] = {}
        for extra in EXTRAS:
            for name in needed(extra, machine):
                extras.setdefault(name, []).append(extra)
        chosen = _chosen(sorted(extras), locked, machine)
        for name in sorted(extras):
            yield arch, name, locked[name][0], *chosen[name], sorted(extras[name])


def write(lines: Iterable[str], path: Path) -> None:
    path.write_text("\n".join(lines) + "\n")
    print(path.relative_to(ROOT))


def _packages_lock() -> Iterator[str]:
    yield "# Debian packages of an image's base. Written by tests/kit/image_locks.py."
    yield f'date = "{datetime.now(UTC):%Y-%m-%d}"'
    for arch in MACHINES:
        for name, fields in sorted(packages(arch).items()):
            yield ""
            yield f"[[{arch}]]"
            yield f'name = "{name}"'
            yield f'version = "{fields["Version"]}"'
            yield f'path = "{fields["Archive"]}/{fields["Filename"]}"'
            yield f'sha256 = "{fields["SHA256"]}"'
            yield f"size = {fields['Size']}"


def _wheels_lock() -> Iterator[str]:
    yield "# Wheels of images for Python 3.13, with the extras that need them. Written by tests/kit/image_locks.py."
    for arch, name, version, file, digest, wanted in wheels():
        yield ""
        yield f"[[{arch}]]"
        yield f'name = "{name}"'
        yield f'version = "{version}"'
        yield f'file = "{file}"'
        yield f'sha256 = "{digest}"'
        yield f"extras = {json.dumps(wanted)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", action="store_true", help="only the wheels")
    if not parser.parse_args().wheels:
        write(_packages_lock(), PLACE / "base.toml")
    write(_wheels_lock(), PLACE / "wheels.toml")


if __name__ == "__main__":
    main()
