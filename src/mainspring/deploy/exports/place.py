"""The place where exported steps run, and what the exports have in common."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mainspring.core.errors import Invalid
from mainspring.core.time import MINUTE, SECOND
from mainspring.jobs.pipelines.graph import Graph, Node
from mainspring.jobs.times import Cron, Every, parse_when

# Names that exported files use themselves.
_TAKEN = frozenset(
    ("context", "dag", "dagster", "datetime", "each", "flow", "found", "item", "items", "job", "json", "op", "outcomes",
     "parameters", "step", "subprocess", "task", "timedelta", "timezone")
)  # fmt: skip

FIRST_DELAY_S, LONGEST_DELAY_S = 2, 600  # between attempts of a step; each delay is twice the one before
_ENDINGS = ("all", "approved", "asks", "found", "items", "list", "op", "operator", "task")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the steps of an exported pipeline run.

    Args:
        command: The command line of Mainspring there; engines that run steps as processes use it.
        image: Container image with Mainspring and the project; engines that run steps as containers need it.
        folder: The project's folder there.
        profile: The profile to use there; by default the project's.
    """

    command: Sequence[str] = ("mainspring",)
    image: str = ""
    folder: str = "."
    profile: str = ""

    def step(self, graph: Graph) -> list[str]:
        """Return the command that runs a step, up to the step's name."""
        profile = ["--profile", self.profile] if self.profile else []
        return [*self.command, "pipelines", "step", "--project", self.folder, *profile, "--json", graph.name]

    def container(self, graph: Graph, engine: str) -> str:
        """Return the image.

        Raises:
            Invalid: There is none.
        """
        if not self.image:
            raise Invalid(
                f"{engine} runs the steps of {graph.name!r} in containers, and no image is given.",
                fix="give --image NAME of an image with Mainspring and the project.",
            )
        return self.image


def identifiers(graph: Graph) -> dict[str, str]:
    """Return node -> an identifier that every engine takes: letters, digits and `_`, beginning with a letter.

    They are unique without regard to case and to `_` at the end, and with the endings that exporters add. None is a
    parameter of the pipeline, which an exported function may have as its own.
    """
    found: dict[str, str] = {}
    taken = {name.lower().strip("_") for name, _ in graph.parameters}
    for node in graph.nodes:
        base = re.sub(r"\W", "_", node.name, flags=re.ASCII)
        base = base if base[:1].isalpha() else f"n_{base}"
        base = f"{base}_step" if base in _TAKEN or keyword.iskeyword(base) else base
        name, count = base, 2
        while not taken.isdisjoint(_derived(name)):
            name, count = f"{base}_{count}", count + 1
        taken |= _derived(name)
        found[node.name] = name
    return found


def _derived(name: str) -> set[str]:
    """Return the names that exporters make of an identifier, in the form in which they must differ."""
    key = name.lower().strip("_")
    return {key, *(f"{key}_{ending}" for ending in _ENDINGS)}


def seconds(node: Node) -> int | None:
    """Return the time-out of a step in whole seconds, rounded up."""
    return None if node.timeout_us is None else -(-node.timeout_us // SECOND)


def refuse_approvals(graph: Graph, engine: str) -> None:
    """Raise if the pipeline waits for people.

    Raises:
        Invalid: It does.
    """
    asked = next((node.name for node in graph.nodes if node.kind == "approval"), None)
    if asked is not None:
        raise Invalid(
            f"Pipeline {graph.name!r} waits for the approval {asked!r}, and {engine} has no such wait.",
            fix="part the pipeline there, or export it to airflow, prefect, argo or step-functions.",
        )


def refuse_several_approvers(graph: Graph, engine: str) -> None:
    """Raise if an approval asks for more than one person: other engines let one person go on.

    Raises:
        Invalid: There is such an approval.
    """
    asked = next((node for node in graph.nodes if node.by > 1), None)
    if asked is not None:
        raise Invalid(
            f"The approval {asked.name!r} of pipeline {graph.name!r} asks for {asked.by} people, and {engine} for one.",
            fix="run the pipeline here, or ask for one approval after the other: ms.approval(..., by=1).",
        )


def refuse_resources(graph: Graph, engine: str) -> None:
    """Raise if a step asks for resources, which an export that runs processes cannot ask its engine for.

    Raises:
        Invalid: One does.
    """
    asks = next((node for node in graph.nodes if node.resources), None)
    if asks is not None:
        raise Invalid(
            f"Step {asks.name!r} of pipeline {graph.name!r} asks for {' and '.join(asks.resources)}, which an export "
            f"to {engine} cannot ask for.",
            fix="export it to argo or kubeflow, or leave it out.",
        )


def delays(node: Node) -> list[int]:
    """Return the seconds before each further attempt of a step, as our own runner waits."""
    return [min(FIRST_DELAY_S * 2**number, LONGEST_DELAY_S) for number in range(node.retries)]


def job_name(graph: Graph) -> str:
    """Return the pipeline's name in letters, digits and `_`."""
    return re.sub(r"\W", "_", graph.name, flags=re.ASCII)


def cron(graph: Graph) -> str:
    """Return the schedule as five cron fields in UTC; empty if there is none, or cron cannot express it.

    An interval counts from 1970: those that divide an hour, a day or a week evenly are the same in cron.
    """
    if not graph.schedule:
        return ""
    when = parse_when(graph.schedule)
    if isinstance(when, Cron):
        return when.text
    minutes, rest = divmod(when.duration, MINUTE) if isinstance(when, Every) else (0, 1)
    if rest:
        return ""
    if minutes and 60 % minutes == 0:
        return f"*/{minutes} * * * *" if minutes < 60 else "0 * * * *"
    hours, rest = divmod(minutes, 60)
    if hours and not rest and 24 % hours == 0:
        return f"0 */{hours} * * *" if hours < 24 else "0 0 * * *"
    return "0 0 * * 4" if not rest and hours == 7 * 24 else ""  # 1 January 1970 was a Thursday


def head(graph: Graph, engine: str) -> str:
    """Return the docstring of an exported Python file."""
    about = (graph.description or f"Pipeline {graph.name}.").replace("\\", "\\\\").replace('"', "'")
    made = f"Exported to {engine} by `mainspring pipelines export`: change the pipeline and export it again."
    return f'"""{about}\n\n{made}\n"""\n'


def caller(graph: Graph, place: Place) -> str:
    """Return Python code with `run_step`, which runs a step as a process; for engines that speak Python."""
    defaults = json.dumps(dict(graph.parameters), sort_keys=True)
    return _CALLER.format(step=place.step(graph), defaults=repr(defaults))


_CALLER = '''\
import json
import subprocess

STEP = {step}
DEFAULTS = json.loads({defaults})


def run_step(name, parameters=None, outcomes=None, *more, timeout=None):
    """Run one step with the outcomes of those before it, and return its own outcome. It is killed after `timeout` s."""
    scope = json.dumps({{"parameters": {{**DEFAULTS, **(parameters or {{}})}}, "outcomes": outcomes or {{}}}})
    command = [*STEP, name, "--scope", "-", *more]
    done = subprocess.run(command, input=scope, stdout=subprocess.PIPE, text=True, check=True, timeout=timeout)
    return json.loads(done.stdout)

'''
