"""Interpreter of the part of Argo Workflows that exports use: a DAG of containers, `withParam`, `when`, suspension.

Templates are filled in as Argo does, and commands run as they are written, in this process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mainspring.operations.pipelines.outside import list_items, read_scope, run_step, run_wrapped, write_outcome
from mainspring.project import Project


class Interpreter:
    """One run of a manifest.

    Attributes:
        failed: Tasks that failed in all attempts.
        omitted: Tasks that did not run as one that they depend on failed.
    """

    def __init__(self, project: Project, written: dict[str, Any], folder: Path) -> None:
        self.project, self.folder = project, folder
        spec = written["spec"].get("workflowSpec", written["spec"])
        self.templates = {each["name"]: each for each in spec["templates"]}
        self.dag = self.templates[spec["entrypoint"]]["dag"]
        self.values = {f"workflow.parameters.{each['name']}": each["value"] for each in spec["arguments"]["parameters"]}
        self.failed: set[str] = set()
        self.omitted: set[str] = set()

    def run(self) -> dict[str, dict[str, str]]:
        """Run the tasks, and return the outputs of those that ended well."""
        outputs: dict[str, dict[str, str]] = {}
        waiting = list(self.dag["tasks"])
        while waiting:
            ended = outputs.keys() | self.failed | self.omitted
            task = next(each for each in waiting if _needs(each) <= ended)
            waiting.remove(task)
            stopped = self.failed and self.dag.get("failFast", True)
            if stopped or not _needs(task) <= outputs.keys():
                self.omitted.add(task["name"])
                continue
            try:
                outputs[task["name"]] = self._task(task)
            except Exception:
                self.failed.add(task["name"])
                continue
            for name, value in outputs[task["name"]].items():
                self.values[f"tasks.{task['name']}.outputs.parameters.{name}"] = value
        return outputs

    def _task(self, task: dict[str, Any]) -> dict[str, str]:
        if "when" in task:
            left, _, right = self._filled(task["when"], {}).partition(" == ")
            if left != right:
                return {}
        template = self.templates[task["template"]]
        if "suspend" in template:
            return {}
        if "withParam" not in task:
            return self._container(template, task, {})
        items = json.loads(self._filled(task["withParam"], {}))
        assert items  # Argo fills in no outputs of a task over nothing
        each, errors = [], []
        for item in items:
            try:
                each.append(self._container(template, task, {"item": json.dumps(item)}))
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return {name: json.dumps([json.loads(one[name]) for one in each]) for name in each[0]}

    def _container(self, template: dict[str, Any], task: dict[str, Any], item: dict[str, str]) -> dict[str, str]:
        given = {
            f"inputs.parameters.{each['name']}": self._filled(each["value"], item)
            for each in task["arguments"]["parameters"]
        }
        command = [*template["container"]["command"], *template["container"]["args"]]
        options = [self._filled(each, given, only="inputs.") for each in command]
        assert not any("{{" in each for each in options)  # Argo fills in twice: also what a step returned
        attempts = 1 + int(template.get("retryStrategy", {}).get("limit", "0"))
        return _again(attempts, lambda: self._ran(template, options))

    def _ran(self, template: dict[str, Any], options: list[str]) -> dict[str, str]:
        scope = read_scope(options[options.index("--scope") + 1])
        pipeline, step = options[options.index("--scope") - 2 : options.index("--scope")]
        wrapped = "--wrapped-item" in options
        if "--items" in options:
            outcome = list_items(self.project, pipeline, step, scope)
        elif wrapped:
            outcome = run_wrapped(self.project, pipeline, step, scope, options[options.index("--wrapped-item") + 1])
        else:
            outcome = run_step(self.project, pipeline, step, scope)
        write_outcome(outcome, self.folder, wrapped=wrapped)
        outputs = template["outputs"]["parameters"]
        return {each["name"]: (self.folder / Path(each["valueFrom"]["path"]).name).read_text() for each in outputs}

    def _filled(self, text: str, more: dict[str, str], only: str = "") -> str:
        values = more if only else {**self.values, **more}
        return re.sub(r"\{\{([\w.-]+)\}\}", lambda found: values.get(found[1], found[0]), text)


def _needs(task: dict[str, Any]) -> set[str]:
    return set(task.get("depends", "").split(" && ")) - {""}


def _again(attempts: int, do: Callable[[], dict[str, str]]) -> dict[str, str]:
    for left in reversed(range(attempts)):
        try:
            return do()
        except Exception:
            if not left:
                raise
    raise AssertionError
