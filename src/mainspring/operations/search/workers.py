"""The processes of a search. Only the parent accesses the study; a child that dies costs only its trial.

A trial's end is recorded first in its run, then in the study. If a process dies in between, the run decides.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path
from typing import Any

from mainspring.core.errors import MainspringError
from mainspring.project import Project
from mainspring.registry.runs import NAME, PARENT, process_tags
from mainspring.training.model import Model
from mainspring.training.search.study import Study, Trial
from mainspring.training.search.trials import FAILED, Ended, ended_of

TRIAL = "mainspring.trial"  # tag with the trial number of a run
_PATIENCE_S = 1.5  # for calls to a store during an interrupt; the next search settles the rest
_HOPELESS = 10  # after this many failures without any other result, the rest would fail too


class Worker:
    """One process that runs trials; it ends with this process."""

    def __init__(self, project: Project, model: str, rows: Path, log: Path) -> None:
        hold, self._held = os.pipe()
        hear, asking = os.pipe()
        telling, tell = os.pipe()
        settings = project.settings
        command = [sys.executable, "-m", "mainspring.processes.child", str(hold)]
        command += [
            "mainspring.operations.search.child",
            "--project",
            str(settings.root),
            "--profile",
            settings.profile,
            "--model",
            model,
        ]
        command += ["--rows", str(rows), "--hear", str(hear), "--tell", str(tell)]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=(hold, hear, tell)
            )
        for inherited in (hold, hear, tell):
            os.close(inherited)
        self._ask, self._answers = os.fdopen(asking, "w"), os.fdopen(telling, "r")

    def attempt(self, trial: Trial, run_id: str, report: Callable[[float, int], bool]) -> Ended | None:
        """Run a trial and return its outcome; `None` if the process died.

        Raises:
            MainspringError: The process cannot run trials, because the project cannot be loaded there.
        """
        try:
            self._say(run_id=run_id, params=trial.params)
            for line in self._answers:
                answer = json.loads(line)
                if "broken" in answer:
                    raise MainspringError(f"No trial can be run: {answer['broken']}", fix=answer["fix"])
                if "step" not in answer:
                    return Ended(answer["state"], answer["value"], answer["reason"])
                self._say(stop=report(answer["value"], answer["step"]))
        except (BrokenPipeError, json.JSONDecodeError):  # the process died, perhaps in the middle of a line
            return None
        return None

    def _say(self, **what: Any) -> None:
        self._ask.write(json.dumps(what) + "\n")
        self._ask.flush()

    def close(self) -> None:
        """End the process."""
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for stream in (self._ask, self._answers):
            with suppress(OSError):
                stream.close()
        os.close(self._held)


class Trials:
    """Trials in `workers` processes until `wanted` have ended.

    Args:
        told: Called after each trial, by one thread at a time.
        interrupts: Ends the trials once it is not empty.
    """

    def __init__(
        self,
        project: Project,
        model: Model,
        study: Study,
        run_id: str,
        folder: Path,
        *,
        wanted: int,
        told: Callable[[Trial, Ended], None],
        interrupts: Sequence[int] = (),
    ) -> None:
        self._project, self._model, self._study, self._run_id, self._folder = project, model, study, run_id, folder
        self._wanted, self._told, self._interrupts = wanted, told, interrupts
        self._lock = threading.RLock()
        self._open: set[int] = set()
        self._workers: dict[int, Worker] = {}
        self._error: BaseException | None = None
        self._stopped = False

    def settle(self) -> None:
        """Settle the trials whose processes died unnoticed."""
        for trial in self._study.unended():
            self._settle(trial)

    def run(self, workers: int) -> None:
        """Run the trials.

        Raises:
            MainspringError: No trial can be run, or a store failed.
        """
        # Each in a context like this one, which knows who started the search and who pays.
        calls = [(copy_context().run, self._work, number) for number in range(workers)]
        threads = [threading.Thread(target=run, args=given, daemon=True) for run, *given in calls]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
                    if self._interrupts:
                        raise KeyboardInterrupt
        finally:
            self._stop()
            end = time.monotonic() + _PATIENCE_S
            for thread in threads:
                if thread.ident is not None:
                    thread.join(max(0.0, end - time.monotonic()))
        if self._error is not None:
            raise self._error

    def _stop(self) -> None:
        """Start no more trials, and end the running ones. It does not wait for the lock, whose holder may be waiting
        for a store.
        """
        self._stopped = True
        for worker in list(self._workers.values()):
            worker.process.kill()

    def _work(self, number: int) -> None:
        worker: Worker | None = None
        try:
            while (begun := self._begin(number)) is not None:
                trial, worker = begun
                if self._over():
                    return
                ended = worker.attempt(trial, trial.run_id, lambda value, step: self._report(begun[0], value, step))
                with self._lock:
                    if self._stopped:
                        return  # it stays open; the resumed search settles it
                    self._open.discard(trial.number)
                    if ended is None:
                        worker.close()
                        del self._workers[number]
                        worker = None
                        self._settle(trial)
                    else:
                        self._study.tell(trial.number, ended)
                        self._told(trial, ended)
        except BaseException as error:
            with self._lock:
                self._error = self._error or error
                self._stop()
        finally:
            with self._lock:
                last = self._workers.pop(number, None)
            if last is not None:
                last.close()

    def _over(self) -> bool:
        return self._stopped

    def _begin(self, number: int) -> tuple[Trial, Worker] | None:
        with self._lock:
            if self._stopped:
                return None
            ended = self._study.trials()
            if len(ended) + len(self._open) >= self._wanted:
                return None
            if len(ended) >= _HOPELESS and all(trial.state == FAILED for trial in ended):
                return None
            worker = self._workers.get(number)
            if worker is None:
                log = self._folder / f"worker-{number}.log"
                worker = self._workers[number] = Worker(self._project, self._model.name, self._folder, log)
            trial = self._study.ask()
            run_id = self._start(trial, worker.process.pid)
            self._study.begun(trial.number, run_id)
            self._open.add(trial.number)
        return Trial(trial.number, trial.state, trial.params, run_id), worker

    def _start(self, trial: Trial, pid: int) -> str:
        tags: Mapping[str, str] = {
            **process_tags(pid),
            PARENT: self._run_id,
            NAME: f"trial {trial.number}",
            TRIAL: str(trial.number),
            "seed": str(self._model.seed),
        }
        return self._project.tracking.start(self._model.name, tags, self._project.wall.now())

    def _report(self, trial: Trial, value: float, step: int) -> bool:
        with self._lock:
            return self._study.report(trial.number, value, step)

    def _settle(self, trial: Trial) -> None:
        ended = None
        if trial.run_id:
            run = self._project.tracking.get(trial.run_id)
            ended = ended_of(run.tags, run.status)
        if ended is not None:
            self._study.tell(trial.number, ended)
            self._told(trial, ended)
            return
        if trial.run_id:
            self._project.tracking.finish(trial.run_id, "KILLED", self._project.wall.now())
        if not self._study.lost(trial.number):
            self._told(trial, Ended(FAILED, None, "its process died"))
