"""Holders of master keys on this machine: a token of SoftHSM, a Secret Service of GNOME, and a keyring in memory."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from kit.servers import installed
from kit.waiting import wait_until

PIN, LABEL = "2718 28", "mainspring"
_MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so")


@dataclass(frozen=True)
class Token:
    """A token of SoftHSM. What it stores is in `folder`, which a test may move away."""

    folder: Path
    pin: Path
    module: str

    @property
    def url(self) -> str:
        return f"pkcs11:token=our%20token;object={LABEL}?module-path={self.module}&pin-source=file:{self.pin}"


@contextmanager
def token(folder: Path) -> Iterator[Token]:
    """Make a token without keys, whose PIN is in a private file."""
    program = installed("softhsm2-util", wanted=True)
    module = next(each for each in _MODULES if Path(each).exists())
    pin, made, settings = folder / "pin", folder / "tokens", folder / "softhsm2.conf"
    made.mkdir()
    settings.write_text(f"directories.tokendir = {made}\nobjectstore.backend = file\nlog.level = ERROR\n")
    pin.write_text(f"{PIN}\n")
    pin.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(settings))
        subprocess.run(
            [program, "--init-token", "--free", "--label", "our token", "--pin", PIN, "--so-pin", "314159"],
            check=True, capture_output=True,
        )  # fmt: skip
        yield Token(made, pin, module)


# It starts no service of the machine.
_BUS = """<busconfig><type>session</type><listen>{address}</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>"""


class MemoryKeyring:
    """The functions of the package `keyring`, over a dictionary."""

    class errors:
        class KeyringError(Exception):
            pass

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_keyring(self) -> SimpleNamespace:
        return SimpleNamespace(name="memory")

    def get_password(self, service: str, name: str) -> str | None:
        if self.locked:
            raise self.errors.KeyringError("locked")
        return self.entries.get((service, name))

    def set_password(self, service: str, name: str, text: str) -> None:
        self.entries[service, name] = text

    def delete_password(self, service: str, name: str) -> None:
        del self.entries[service, name]


class SecretService:
    """A session bus and GNOME's keyring on it, unlocked, with its files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._bus_program = installed("dbus-daemon", wanted=True)
        self._program = installed("gnome-keyring-daemon", wanted=True)
        self._folder = folder
        self._short = tempfile.TemporaryDirectory(prefix="bus-")  # a socket's path has an end
        self._socket = Path(self._short.name, "bus")
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        address = f"unix:path={self._socket}"
        environment = {**os.environ, "HOME": str(self._folder), "XDG_DATA_HOME": str(self._folder),
                       "XDG_RUNTIME_DIR": self._short.name, "DBUS_SESSION_BUS_ADDRESS": address}  # fmt: skip
        settings = self._folder / "bus.conf"
        settings.write_text(_BUS.format(address=address))
        bus = [self._bus_program, f"--config-file={settings}", "--nofork", "--nopidfile", "--nosyslog"]
        self._run(bus, environment, subprocess.DEVNULL)
        wait_until(self._socket.exists, "the session bus")
        keyring = [self._program, "--unlock", "--foreground", "--components=secrets"]
        daemon = self._run(keyring, environment, subprocess.PIPE)
        assert daemon.stdin is not None
        daemon.stdin.write(b"a password")
        daemon.stdin.close()
        os.environ["DBUS_SESSION_BUS_ADDRESS"] = address
        wait_until(_unlocked, "the keyring")

    def stop(self) -> None:
        for process in self._running[::-1]:
            process.kill()
            process.wait()
        self._running.clear()
        self._socket.unlink(missing_ok=True)  # of a bus that was killed it stays, and nobody listens there

    def close(self) -> None:
        self.stop()
        self._short.cleanup()

    def _run(self, command: list[str], environment: dict[str, str], stdin: int) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, env=environment, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._running.append(process)
        return process


def _unlocked() -> bool:
    import secretstorage

    try:
        with closing(secretstorage.dbus_init()) as bus:
            return not secretstorage.collection.get_collection_by_alias(bus, "default").is_locked()
    except secretstorage.exceptions.SecretStorageException:
        return False
