"""Random pipelines of one step that counts its calls, and our own runner's result of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from kit.console.flights import NOW, Project, declared
from mainspring.core.time import MINUTE, ManualClock
from mainspring.jobs.model import ENDED, Status
from mainspring.jobs.pipelines.declaring import Pipeline
from mainspring.jobs.pipelines.graph import Graph, Node
from mainspring.jobs.pipelines.values import Comparison, Constant, Item, Output, Parameter, Several, Value
from mainspring.jobs.runner import Runner
from mainspring.operations.jobs.handlers import handlers
from mainspring.operations.pipelines import control

RAN: Counter[str] = Counter()  # calls of each step, and of each item of a mapped one
STEPS = """
import mainspring as ms
from kit.graphs import RAN

@ms.step
def work(name, given=(), item=None, fails=0, items=0, flag=None):
    key = name if item is None else f"{name}[{item['at']}]"
    RAN[key] += 1
    if RAN[key] <= fails and (item is None or item["at"] == 0):
        raise RuntimeError(key)
    made = [{"at": at, "text": "{{item}} 'x' \\\\u007b{{{ \\u2028"} for at in range(items)]
    return {"n": len(given) + items, "items": made, "given": given, "flag": flag}
"""


@dataclass(frozen=True)
class Ran:
    """What a run was: calls by step, results of the steps that were done, and whether all went well."""

    calls: Mapping[str, int]
    results: Mapping[str, Any]
    well: bool


@st.composite
def graphs(draw: st.DrawFn, retries: int = 1) -> Graph:
    """Return a graph of up to six steps: needs, order alone, conditions, mapped steps, failures."""
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, 6))):
        before = [node.name for node in nodes]
        plain = [node.name for node in nodes if node.over is None]
        inputs: dict[str, Value] = {"name": Constant(f"s-{number}"), "items": Constant(draw(st.integers(0, 2)))}
        inputs["fails"] = Constant(draw(st.sampled_from((0, 0, 0, 0, 1, 9))))
        inputs["flag"] = draw(st.sampled_from((Parameter("flag"), Constant("$(x) {{=1}}"))))
        if before and draw(st.booleans()):
            chosen = draw(st.lists(st.sampled_from(before), min_size=1, max_size=2, unique=True))
            inputs["given"] = Several(tuple(Output(each) for each in chosen))
        when: tuple[Value, ...] = ()
        if plain and draw(st.booleans()):
            left = Output(draw(st.sampled_from(plain)), ("n",))
            when = (Comparison(left, draw(st.sampled_from((">", "<=", "=="))), Constant(draw(st.integers(0, 2)))),)
        over = None
        if plain and draw(st.booleans()):
            over, inputs["item"] = Output(draw(st.sampled_from(plain)), ("items",)), Item()
        after = (draw(st.sampled_from(before)),) if before and draw(st.booleans()) else ()
        again = draw(st.integers(0, retries))
        nodes.append(
            Node(
                f"s-{number}", function="toys:work", inputs=tuple(inputs.items()), when=when, over=over, after=after,
                retries=again,
            )
        )  # fmt: skip
    return Graph("toy", tuple(nodes), (("flag", "it's {{workflow.name}}"),))


def toys(folder: Path) -> Project:
    """Return a project in memory with the step in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toys.py").write_text(STEPS)
    made = Project(wall=ManualClock(NOW))
    return Project(replace(made.settings, root=folder, modules=("toys",), state=folder / ".mainspring"), wall=made.wall)


def declaring(project: Project, graph: Graph) -> Project:
    """Return the project with this pipeline alone, no job, and no call counted."""
    RAN.clear()
    return project.having(definitions=declared(pipelines={graph.name: Pipeline(graph, lambda: None)}))


def run_here(project: Project, graph: Graph) -> Ran:
    """Run the pipeline by our own runner, in this process."""
    project = declaring(project, graph)
    run = control.start(project, graph.name, by="ana").id
    runner = Runner(project.jobs, handlers(project), project.wall, holder="kit")
    while control.find_run(project, run).status not in ENDED:
        if runner.run_one() is None:
            assert isinstance(project.wall, ManualClock)
            project.wall.advance(11 * MINUTE)
    found = control.state(project, run)
    nodes = {node.name for node in graph.nodes}
    done = {each.name: each.result for each in found.steps if each.status is Status.DONE and each.name in nodes}
    return Ran(dict(RAN), done, found.job.status is Status.DONE)
