"""A training on several machines: machine 0 opens the run and registers the version, the others come to it.

All run the same command on the same project, with the same stores in their profiles.
"""

from __future__ import annotations

import hashlib
import platform
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.core.errors import MainspringError
from mainspring.core.ids import new_id
from mainspring.core.settings import Address
from mainspring.core.version import __version__
from mainspring.data.model import DatasetCommit
from mainspring.deploy.meeting import certificates
from mainspring.deploy.meeting.guest import Guest
from mainspring.deploy.meeting.host import Host
from mainspring.deploy.meeting.model import Alike, Announced, Hello, Welcome, differing_tables
from mainspring.deploy.meeting.own import OwnRanks
from mainspring.features import definitions
from mainspring.operations.distributed.launching import ENTRY, clear
from mainspring.operations.distributed.part import Part, shared_checkpoints
from mainspring.operations.distributed.rank import Asked
from mainspring.project.backends.engines import announced_machines, machines_runner
from mainspring.training.distributed.ends import error_of
from mainspring.training.distributed.logs import logged
from mainspring.training.distributed.ports import LOGS, Job, Runner
from mainspring.training.distribution import Distributed
from mainspring.training.inputs import read_by
from mainspring.training.loop.objects import shelf_of
from mainspring.training.loop.signals import Interrupted, signals_noted
from mainspring.training.model import Model, TrainReport
from mainspring.training.runs.provenance import environment, file_digests, package_digest

if TYPE_CHECKING:
    from mainspring.project import Project

_COMPUTING = ("mainspring", "torch", "numpy", "pyarrow", "duckdb")  # packages that must be alike
_LOG_BYTES = 4 << 20  # of all logs of a machine, which are sent in one line
_MARKS = "machines"  # folder of the file by which machines see that they share a place


@contextmanager
def hosting(
    project: Project, model: Model, part: Part, job: Job, commit: DatasetCommit
) -> Iterator[tuple[Runner, Callable[[TrainReport], None]]]:
    """Let the other machines come inside the block, which gets a runner, and what tells them of the version."""
    distributed, place = job.distributed, shared_checkpoints(project, model.name)
    own = certificates.make(project.wall.now())
    announced = announced_machines(project, model.name)
    host = Host(
        Address.parse(part.meet), own, announced.every, (socket.gethostname(), _alike(project, model, distributed)),
        model=model.name, machines=distributed.machines, wait_s=part.wait_s,
    )  # fmt: skip
    last: dict[str, Any] = {"error": {"kind": "MainspringError", "what": "Its process ended.", "fix": None}}
    shelf, mark = shelf_of(place, _MARKS), new_id()
    try:
        shelf.put(job.id, lambda path: path.write_text(mark))
        welcome = Welcome(run=job.id, request=job.request, tables=_tables(project, model, commit), mark=mark)
        (job.folder / "request.json").write_text(job.request, encoding="utf-8")
        host.open(welcome, OwnRanks(job.entry, job.folder, job.id, distributed.processes))
        address = f"{part.meet.rpartition(':')[0]}:{host.address.port}"
        announced.announce(Announced(0, socket.gethostname(), address, own.pem))
        yield machines_runner(host, part.wait_s), lambda report: last.update(report=asdict(report))
    except Interrupted as stopped:
        last = {"stopped": stopped.number, "what": str(stopped), "preempted": stopped.preempted}
        raise
    except MainspringError as error:
        last = {"error": {"kind": type(error).__name__, "what": error.what, "fix": error.fix}}
        raise
    finally:
        host.close(last)
        with suppress(MainspringError, OSError):
            shelf.remove(job.id)
        with suppress(MainspringError):
            announced.withdraw(own.digest, others=True)


def join(
    project: Project, model: Model, distributed: Distributed, part: Part, progress: Callable[[str, float], None]
) -> TrainReport:
    """Take part in a training as another machine than the first; return what machine 0 reports.

    Raises:
        Conflict: This machine has other files, packages or data than machine 0, or another training of the model runs.
        Unavailable: Machine 0 did not come, or did not come back.
        Interrupted: The training was stopped by a signal, to this command or another machine's.
        MainspringError: The training failed.
    """
    own = certificates.make(project.wall.now())
    announced = announced_machines(project, model.name)
    name = socket.gethostname()
    me = Announced(part.number, name, "", own.pem)

    def host() -> Announced | None:
        if all(each.certificate != own.pem for each in announced.every()):
            announced.announce(me)
        return announced.host()

    with (
        project.own_locks.within("training").hold(model.name, wait_s=0),
        signals_noted() as noted,
        _Ranks(project, model, distributed) as ranks,
    ):
        hello = Hello(part.number, name, _alike(project, model, distributed))
        guest = Guest(
            own, host, hello, ranks, stop=lambda: noted[0] if noted else 0, wait_s=part.wait_s,
            tell=lambda what: progress(what, 0.02),
        )  # fmt: skip
        ranks.tell = lambda what: progress(what, 0.1)
        try:
            last = guest.run()
        finally:
            with suppress(MainspringError):
                announced.withdraw(own.digest)
    return _reported(last, noted[0] if noted else 0)


def _reported(last: Mapping[str, Any], signal: int) -> TrainReport:
    if "report" in last:
        return msgspec.convert(last["report"], TrainReport)
    if "stopped" in last:
        raise Interrupted(signal or last["stopped"], last["what"], preempted=last["preempted"])
    error = error_of(last["error"])
    raise type(error)(f"Machine 0 ended the training: {error.what}", fix=error.fix)


class _Ranks:
    """`Work` of this machine: agrees to a training, and starts its ranks."""

    def __init__(self, project: Project, model: Model, distributed: Distributed) -> None:
        self._project, self._model, self._distributed = project, model, distributed
        self._folder = project.settings.state / "training" / model.name
        self._ranks: OwnRanks | None = None
        self.tell: Callable[[str], None] = lambda _what: None

    def __enter__(self) -> _Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def agrees(self, welcome: Welcome) -> Sequence[str]:
        place = shared_checkpoints(self._project, self._model.name)
        here = _tables_at(self._project, {name: int(each[0]) for name, each in welcome.tables.items()})
        differs = differing_tables(here, welcome.tables)
        try:
            seen = shelf_of(place, _MARKS).local(welcome.run).read_text()
        except OSError:
            seen = ""
        if seen != welcome.mark:
            differs.append("the place of checkpoints")
        if differs:
            return differs
        clear(self._folder)
        asked = msgspec.json.decode(welcome.request, type=Asked)
        settings = self._project.settings
        own = replace_asked(asked, root=settings.root, profile=settings.profile, folder=self._folder, place=place)
        (self._folder / "request.json").write_bytes(msgspec.json.encode(own))
        self.tell("start PyTorch")
        self._ranks = OwnRanks(ENTRY, self._folder.resolve(), welcome.run, self._distributed.processes)
        self._ranks.ask({"do": "look"})
        self.tell("wait for all machines")
        return []

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if self._ranks is None:
            return {}
        if request["do"] == "logs":
            return {"logs": self._logs()}
        if request["do"] == "start":
            self.tell(f"train ranks {', '.join(map(str, request['ranks']))}")
        answer: dict[str, Any] = self._ranks.ask(request)
        return answer

    def _logs(self) -> dict[str, str]:
        most = _LOG_BYTES // self._distributed.processes
        every = sorted(self._folder.glob(LOGS.format("*")))
        return {path.name: logged(path)[-most:].decode(errors="replace") for path in every}

    def end(self) -> None:
        if self._ranks is not None:
            self._ranks.close()
            self._ranks = None


def replace_asked(asked: Asked, *, root: Path, profile: str, folder: Path, place: Path | str) -> Asked:
    """Return a request with this machine's own folders: none comes over the network."""
    return msgspec.structs.replace(
        asked, root=str(root.resolve()), profile=profile, code="", scratch="", folder=str(folder.resolve()),
        checkpoints=str(place),
    )  # fmt: skip


def _alike(project: Project, model: Model, distributed: Distributed) -> Alike:
    packages = environment()
    versions = {name: packages.get(name, "none") for name in _COMPUTING}
    versions["python"] = ".".join(platform.python_version_tuple()[:2])
    versions["mainspring"] = f"{__version__}, files {package_digest()[:12]}"
    digest = hashlib.sha256(definitions.dump(model.features, model.observations)).hexdigest()
    counts = {"machines": distributed.machines, "processes": distributed.processes}
    return Alike(file_digests(project.settings.root), digest, versions, counts)


def _tables(project: Project, model: Model, commit: DatasetCommit) -> dict[str, list[Any]]:
    return _tables_at(project, {name: commit.versions[name] for name in read_by(model) if name in commit.versions})


def _tables_at(project: Project, versions: Mapping[str, int]) -> dict[str, list[Any]]:
    """Return the version and the digest of the rows' files of each table; no digest where there is no such version."""
    found: dict[str, list[Any]] = {}
    for name, number in versions.items():
        try:
            at = project.lake.describe(name, number)
            text = "\n".join([*sorted(at.files), str(at.rows), str(at.schema)])
            found[name] = [number, hashlib.sha256(text.encode()).hexdigest()]
        except MainspringError:
            found[name] = [number, ""]
    return found
