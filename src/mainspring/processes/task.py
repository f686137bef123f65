"""Start of a process in a task of ECS: `python -m mainspring.processes.task COMMAND...`, as its first process.

A task has a volume, and gets secrets as variables alone. So the installation's keys come packed in one, which is not
among the variables of what is started; the planes get a certificate, which the load balancer does not verify; and the
name of the host in the load balancer's own checks is the task's address.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import socket
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from mainspring.core.environment import for_child
from mainspring.core.errors import Invalid, MainspringError
from mainspring.core.files import write_atomic, write_once
from mainspring.core.time import SystemClock
from mainspring.deploy.meeting import certificates

KEYS = "MAINSPRING_KEYS"
_STATE, _HOSTS, _TEMPORARY = "MAINSPRING_STATE", "MAINSPRING_ALLOWED_HOSTS", "TMPDIR"
_USAGE = 2


def main() -> None:
    """Replace this process by `mainspring COMMAND...`; exit with 2 if it cannot be started."""
    try:
        environment = prepared(for_child({}), socket.gethostbyname(socket.gethostname()), SystemClock().now())
    except MainspringError as error:
        sys.stderr.write(f"Error: {error}\n")
        sys.exit(_USAGE)
    os.execve(sys.executable, [sys.executable, "-m", "mainspring", *sys.argv[1:]], environment)  # noqa: S606


def prepared(given: Mapping[str, str], address: str, now: int) -> dict[str, str]:
    """Put keys and a certificate into the state folder, and return the variables of the process.

    Args:
        address: Of this task.
        now: UTC epoch microseconds.

    Raises:
        Invalid: A variable is missing, or holds no packed keys.
    """
    if missing := sorted({KEYS, _STATE} - given.keys()):
        raise Invalid(f"The variable {missing[0]} is not set.", fix="start the task as the module of Terraform does.")
    state = Path(given[_STATE])
    _unpack(given[KEYS], state / "keys")
    made, own = certificates.make(now), state / "task"
    own.mkdir(mode=0o700, exist_ok=True)
    places = {"CERT": own / "certificate.pem", "KEY": own / "certificate.key"}
    write_atomic(places["KEY"], made.key, mode=0o600)
    write_atomic(places["CERT"], made.pem.encode(), mode=0o600)
    temporary = own / "tmp"
    temporary.mkdir(mode=0o700, exist_ok=True)
    return {
        **{name: value for name, value in given.items() if name != KEYS},
        **{f"MAINSPRING_{plane}_TLS_{each}": str(places[each]) for plane in ("GATEWAY", "CONTROL") for each in places},
        _HOSTS: ",".join(filter(None, (given.get(_HOSTS, ""), address))),
        _TEMPORARY: str(temporary),
    }


def _unpack(packed: str, folder: Path) -> None:
    """Write the files of a packed folder `keys`. One that is there is newer: the installation adds to some."""
    try:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed, validate=False))) as archive:
            for each in archive.getmembers():
                name = PurePosixPath(each.name)
                file = archive.extractfile(each) if each.isreg() and name.parts[:-1] == ("keys",) else None
                if file is not None:
                    write_once(folder / name.name, file.read())
    except (binascii.Error, tarfile.TarError, EOFError) as error:
        raise Invalid(
            f"{KEYS} holds no packed keys: {error}.", fix="give it `tar -C .mainspring -cz keys | base64 -w0`."
        ) from None


if __name__ == "__main__":
    main()
