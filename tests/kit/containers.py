"""Containers under podman, which needs neither a daemon nor a network here."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kit.servers import installed

_RUN_AS = ("--cgroup-manager", "cgroupfs", "--runtime", "runc")
HARDENED = ("--network", "host", "--ulimit", "nofile=20000:20000", "--read-only", "--cap-drop", "all",
            "--security-opt", "no-new-privileges")  # fmt: skip


@dataclass(frozen=True)
class Podman:
    """podman with its storage in a folder of its own."""

    folder: Path
    driver: str  # overlay, where the kernel lets us; else vfs, which copies all files for each layer

    @property
    def command(self) -> list[str]:
        """Command line of podman with this storage."""
        storage = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run")]
        return ["podman", *storage, *_RUN_AS, "--storage-driver", self.driver]

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*self.command, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if check and done.returncode:
            raise RuntimeError(f"podman {arguments[0]}: {done.stderr}")
        return done

    def load(self, layout: Path) -> str:
        """Load an image from an OCI layout and return its id."""
        return self("pull", "--quiet", f"oci:{layout}").stdout.strip().splitlines()[-1]

    def compose(self, *arguments: str) -> None:
        """Run podman-compose with this storage."""
        wrapper = self.folder / "podman"
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(self.command)} "$@"\n')
        wrapper.chmod(0o755)
        command = [installed("podman-compose", wanted=True), "--podman-path", str(wrapper), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            raise RuntimeError(f"podman-compose: {done.stderr}")

    @contextmanager
    def running(self, image: str, *options: str, command: Sequence[str] = ()) -> Iterator[str]:
        """Give the id of a container that runs, and remove it."""
        id = self("run", "--detach", *HARDENED, *options, image, *command).stdout.strip()
        try:
            yield id
        finally:
            self("rm", "--force", "--time", "0", "--volumes", id)


@contextmanager
def podman() -> Iterator[Podman]:
    """Give podman; skip the test where it or runc is not installed."""
    installed("podman", wanted=sys.platform == "linux")
    installed("runc", wanted=True)
    folder = Path(tempfile.mkdtemp(prefix="podman-"))
    found = Podman(folder, "overlay" if _overlays(folder) else "vfs")
    try:
        yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _overlays(folder: Path) -> bool:
    """Return whether overlays can be mounted in a folder."""
    names = ["lower", "upper", "work", "all"]
    for name in names:
        (folder / name).mkdir()
    of = ",".join(f"{kind}dir={folder / name}" for kind, name in zip(("lower", "upper", "work"), names, strict=False))
    command = ["mount", "-t", "overlay", "overlay", "-o", of, str(folder / "all")]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", str(folder / "all")], check=True)
    return True
