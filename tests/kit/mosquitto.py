"""A real MQTT broker: mosquitto, with passwords, client certificates, and a topic of its own for each device."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kit.certificates import Authority
from kit.waiting import free_port, wait_until

CONTROL = "control"


@dataclass
class Broker:
    """A broker; `url` is for the control plane. A device's user is its id, and so is its password, reversed."""

    folder: Path
    project: str
    authority: Authority | None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def scheme(self) -> str:
        return "mqtt" if self.authority is None else "mqtts"

    def address(self, user: str) -> str:
        return f"{self.scheme}://{user}:{user[::-1]}@127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        ca = "" if self.authority is None else f"?ca={self.authority.certificate}"
        return self.address(CONTROL) + ca

    def start(self) -> None:
        log = (self.folder / "mosquitto.log").open("ab")
        program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        command = [program, "-c", str(self.folder / "mosquitto.conf")]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        wait_until(self._listens, "the broker listens", 30)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(20)

    def users(self, names: Sequence[str]) -> None:
        """Write the passwords; a broker that runs does not see them."""
        passwords = self.folder / "passwords"
        passwords.write_text("".join(f"{name}:{name[::-1]}\n" for name in (CONTROL, *names)))
        passwords.chmod(0o600)
        subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True, capture_output=True)

    def _listens(self) -> bool:
        import socket

        with socket.socket() as client:
            client.settimeout(1.0)
            return client.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def broker(
    folder: Path, project: str, devices: Sequence[str], *, tls: bool = False, rules: str = ""
) -> Iterator[Broker]:
    """Run a broker for a project's devices. With `tls`, a client certificate names a device that has no password.

    Args:
        rules: Content of the ACL file, where it is not that of the documentation.
    """
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    made = Broker(folder, project, Authority(folder, "brokers") if tls else None)
    made.users(devices)
    control = f"user {CONTROL}\ntopic readwrite mainspring/{project}/#\n"
    own = f"pattern write mainspring/{project}/%u/reported\npattern read mainspring/{project}/%u/desired\n"
    (folder / "acl").write_text(rules or control + own)
    (folder / "acl").chmod(0o600)
    secured = ""
    if made.authority is not None:
        shown = made.authority.issue("broker")
        secured = f"cafile {made.authority.certificate}\ncertfile {shown.cert}\nkeyfile {shown.key}\n"
    (folder / "mosquitto.conf").write_text(
        f"user root\nper_listener_settings false\nlistener {made.port} 127.0.0.1\n{secured}allow_anonymous false\n"
        f"password_file {folder}/passwords\nacl_file {folder}/acl\npersistence true\n"
        f"persistence_location {folder}/\nmax_queued_messages 100000\nmax_inflight_messages 1000\n"
    )
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def certified(folder: Path, project: str) -> Iterator[Broker]:
    """Run a broker whose devices have client certificates instead of passwords."""
    with broker(folder, project, [], tls=True) as made:
        made.stop()
        conf = folder / "mosquitto.conf"
        text = conf.read_text().replace(
            "allow_anonymous false\n", "require_certificate true\nuse_identity_as_username true\n"
        )
        conf.write_text(text.replace(f"password_file {folder}/passwords\n", ""))
        made.start()
        yield made
