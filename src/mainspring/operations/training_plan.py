"""Plan of a training in several processes: of a model of the project, which is measured, or of a described one."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from mainspring.core.accelerators import parse_group
from mainspring.core.errors import Invalid
from mainspring.llm.sizing.trained import read_described, trained
from mainspring.training.distribution import Distributed
from mainspring.training.planning.machine import gpus_here, processors_here
from mainspring.training.planning.model import OPTIMISERS, PRECISIONS, named
from mainspring.training.planning.plan import TrainingPlan, plan
from mainspring.training.planning.topology import NETWORK_GB_S, Topology, described, of_group

if TYPE_CHECKING:
    from mainspring.project import Project
    from mainspring.training.loop.loop import Loop
    from mainspring.training.model import Model
    from mainspring.training.planning.model import Model as Measured
    from mainspring.training.planning.plan import LayoutPlan
    from mainspring.training.planning.subject import Subject
    from mainspring.training.runs.run import Run
    from mainspring.training.stages import Observed

_SPARE = 1.25  # of the memory of processes that train
_LONGEST = 4096  # tokens of a sequence, unless others are wanted


def topology_of(gpus: str | None, file: str | None, host_gib: float | None = None) -> Topology | None:
    """Return the devices that are named, or described by a file; `None` if neither is given.

    Raises:
        Invalid: Both are given, or the description is wrong.
        NotFound: There is no such GPU or file.
    """
    if gpus is not None and file is not None:
        raise Invalid("Both --gpus and --topology are given.", fix="give one of them.")
    if host_gib is not None and not math.isfinite(host_gib):
        raise Invalid(f"--host-gib is {host_gib}.", fix="give the GiB of main memory of a machine: --host-gib 512.")
    if gpus is None and file is None:
        return None
    found = described(Path(file)) if file is not None else of_group(parse_group(gpus or ""), NETWORK_GB_S)
    return found if host_gib is None else msgspec.structs.replace(found, host_gib=host_gib)


def plan_described(
    text: str, topology: Topology | None, *, batch: int, sequence: int | None, precision: str, optimiser: str
) -> TrainingPlan:
    """Plan the training of a described language model. Nothing is run, and PyTorch is not needed.

    Args:
        text: A family, a folder with config.json, a file, or fields; see `read_described`.
        batch: Sequences of a step.
        sequence: Tokens of each; by default as described, else 4,096 or what the model can.

    Raises:
        Invalid, NotFound: See `read_described`, `plan`; or there is no GPU to plan for.
    """
    kinds, kept = named(PRECISIONS, precision, "precision"), named(OPTIMISERS, optimiser, "optimiser")
    architecture, tokens = read_described(text)
    tokens = sequence or tokens or min(_LONGEST, architecture.longest or _LONGEST)
    topology = topology or gpus_here()
    if topology is None:
        raise Invalid(
            "This machine has no GPU to plan for.", fix="name GPUs (--gpus 8xH100), or describe them (--topology FILE)."
        )
    return plan(trained(architecture, tokens, kinds, kept), topology, batch)


def plan_training(
    project: Project,
    model: str,
    topology: Topology | None = None,
    *,
    batch: int | None = None,
    since: int | None = None,
    until: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> TrainingPlan:
    """Plan the training of a model of the project: its function runs up to `fit_torch`, where its module is measured.

    Args:
        topology: By default this machine's GPUs, else its processor.
        batch: Rows of a step, by default those of the training.

    Raises:
        Invalid: The model is not trained by `ms.torch.fit_torch`.
        NotFound: There is no such model, or it has no data yet.
    """
    from mainspring.operations.train import prepared

    if progress is not None:
        progress("import PyTorch", 0.0)
    from mainspring.training.planning.subject import subject_of

    def look(training: Loop) -> TrainingPlan:
        return _measured(subject_of(model, training), batch or training.batch_size, topology)

    return _looked(project, prepared(project, model)[0], look, since, until, progress)


def chosen_layout(
    project: Project,
    model: Model,
    *,
    since: int | None = None,
    until: int | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> tuple[Distributed, str]:
    """Return how this machine trains a model of the project best, as its plan says, and why.

    The processes, axes and switches are the plan's; what to do when a process fails is the model's.

    Raises:
        Invalid: The model is not trained by `ms.torch.fit_torch`, or fits in no layout.
        NotFound: It has no data yet.
    """
    from mainspring.training.planning.plan import best
    from mainspring.training.planning.subject import subject_of

    def look(training: Loop) -> tuple[Distributed, LayoutPlan, Topology]:
        subject, rows = subject_of(model.name, training), training.batch_size
        measured, topology = _model(subject, rows, None)
        return *best(measured, topology, rows, training.accumulate), topology

    told, found, topology = _looked(project, model, look, since, until, progress)
    declared = model.distributed or Distributed()
    names = ("processes", "machines", "shard", "tensor", "pipeline", "checkpoint_activations", "offload")
    at_least = min(declared.at_least, told.size)
    chosen = replace(declared, **{name: getattr(told, name) for name in names}, at_least=at_least)
    taken, step_s = found.memory, found.step_s.expected
    why = (
        f"{found.said} on {topology.said()}: {step_s * 1000:.3g} ms a step of {found.rows * found.accumulate:,} rows "
        f"for each process, {taken.total:,} of {taken.limit:,} bytes; {found.why[0]}"
    )
    return chosen, why


def memory_of_processes(
    project: Project,
    model: str,
    distributed: Distributed,
    *,
    progress: Callable[[str, float], None] | None = None,
) -> int:
    """Return bytes that suffice for the processes of one machine which train a model of the project on its cores.

    A process takes what this one has taken at most where the training would begin, with its libraries and rows, and
    what the plan says of the network. The command that starts the ranks counts as one more, and a quarter is added.

    Raises:
        Invalid: The model is not trained by `ms.torch.fit_torch`.
        NotFound: There is no such model, or it has no data yet.
    """
    from mainspring.operations.train import prepared
    from mainspring.training.planning.layouts import Layout
    from mainspring.training.planning.measuring import measured
    from mainspring.training.planning.memory import memory
    from mainspring.training.planning.subject import subject_of

    def look(training: Loop) -> float:
        begun = _peak_bytes()
        share = -(-training.batch_size // (distributed.copies * distributed.shard))  # of the process that has most rows
        found = measured(subject_of(model, training), training.batch_size)
        layout = Layout(distributed, training.accumulate, -(-share // training.accumulate))
        return begun + memory(found, layout, gpu=False).total

    each = _looked(project, prepared(project, model)[0], look, None, None, progress)
    return math.ceil(each * (distributed.processes + 1) * _SPARE)


def _peak_bytes() -> int:
    """Return the most memory that this process has had."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found << 10


Looked = TypeVar("Looked")


def _looked(
    project: Project,
    model: Model,
    look: Callable[[Loop], Looked],
    since: int | None,
    until: int | None,
    progress: Callable[[str, float], None] | None,
) -> Looked:
    """Run the training function of a model up to `fit_torch`, and return what `look` finds there."""
    from mainspring.training.fitting import fit
    from mainspring.training.loop.looking import instead_of_training

    found: list[Looked] = []

    def planned(observed: Observed, run: Run, tell: Callable[[str, float], None]) -> Looked:
        tell("measure the module", 0.2)
        with instead_of_training(lambda training: found.append(look(training))), run.active():
            fit(model, observed.data, run)
        if not found:
            raise Invalid(
                f"The training function of {model.name!r} did not call fit_torch, so there is no module to measure.",
                fix="train with fit_torch (docs/howto/train-with-torch.md); other estimators train in one process.",
            )
        return found[0]

    return project.trainer.inspect(model, "plan", planned, since=since, until=until, progress=progress)[1]


def _measured(subject: Subject, rows: int, topology: Topology | None) -> TrainingPlan:
    from mainspring.training.planning.switches import effects, tried_rows

    model, topology = _model(subject, rows, topology)
    found = plan(model, topology, rows)
    return msgspec.structs.replace(found, switches=effects(subject, tried_rows(model, rows)))


def _model(subject: Subject, rows: int, topology: Topology | None) -> tuple[Measured, Topology]:
    from mainspring.training.planning.measuring import measured
    from mainspring.training.planning.stopwatch import timed

    topology = topology or gpus_here() or processors()
    model = measured(subject, rows)
    return timed(model, subject, rows, topology.devices) if topology.measured else model, topology


def processors() -> Topology:
    """Return the cores of this machine, and the rate of messages between them as it is now."""
    from mainspring.training.planning.loopback import gloo_link

    here = processors_here()
    return here if here.size == 1 else msgspec.structs.replace(here, links=(gloo_link(here.size),))
