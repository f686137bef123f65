"""Jobs of a project's own: `@ms.job` makes a function something that can be queued and scheduled by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

from mainspring.core.declare import declare
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id

Function = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class OwnJob:
    """A job of the project's own.

    Args:
        name: Its name, an id, by which it is queued and scheduled.
        do: Takes the `JobRun` and the opened project, and returns what JSON can say.
        about: What it does, for people.
    """

    name: str
    do: Function
    about: str = ""

    def __post_init__(self) -> None:
        check_id(self.name, "job")
        try:
            inspect.signature(self.do).bind(None, None)
        except TypeError:
            raise Invalid(
                f"The job {self.name!r} does not take a run and a project.", fix="write def NAME(run, project):"
            ) from None
        declare(self)

    @property
    def reference(self) -> str:
        """Where its function stands."""
        return f"{self.do.__module__}:{getattr(self.do, '__qualname__', type(self.do).__name__)}"


@overload
def job(do: Function, /) -> Function: ...
@overload
def job(*, name: str = ...) -> Callable[[Function], Function]: ...


def job(do: Function | None = None, /, *, name: str = "") -> Any:
    """Make a function a job: `mainspring jobs run NAME` and schedules begin it, the worker runs it.

    The function is called with the run (`run.argument`, `run.step(name, function)`, `run.progress(done, total)`,
    `run.check()`) and the project as `ms.open` gives it. What it returns is kept as JSON. After a kill or an error it
    is called again, and steps that were finished give what they gave: what is outside of a step may run twice.

    Args:
        name: Its name, an id; by default the function's, with `-` for `_`.

    Raises:
        Invalid: It is not put above a function, the name is no id, or the function does not take two arguments.
    """

    def declared(function: Any) -> Any:
        if not callable(function) or not (name or hasattr(function, "__name__")):
            raise Invalid(
                f"A job is made of {function!r}.",
                fix='put @ms.job, or @ms.job(name="..."), above a function (run, project).',
            )
        about = next(iter((inspect.getdoc(function) or "").splitlines()), "")
        OwnJob(name or function.__name__.replace("_", "-"), function, about)
        return function

    return declared if do is None else declared(do)
