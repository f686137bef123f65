"""Custom jobs: `@ms.job` makes a project's function available to be queued and scheduled by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, overload

from mainspring.core.definition_registry import declare
from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id

Function = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class OwnJob:
    """A custom job of a project.

    Args:
        name: Name of the job, an id.
        do: The function; takes the `JobRun` and the opened project, and returns a value that JSON can represent.
        about: Description for users.
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
                f"The function of job {self.name!r} must take a run and a project.", fix="write def NAME(run, project):"
            ) from None
        declare(self)

    @property
    def reference(self) -> str:
        """The location of its function."""
        return f"{self.do.__module__}:{getattr(self.do, '__qualname__', type(self.do).__name__)}"


@overload
def job(do: Function, /) -> Function: ...
@overload
def job(*, name: str = ...) -> Callable[[Function], Function]: ...


def job(do: Function | None = None, /, *, name: str = "") -> Any:
    """Declare a function as a job: `mainspring jobs run NAME` and schedules queue it, the worker runs it.

    The function is called with the run (`run.argument`, `run.step(name, function)`, `run.progress(done, total)`,
    `run.check()`) and the project, as from `ms.open`. Its return value is stored as JSON. After a kill or an error it
    is called again, and finished steps return their recorded results; code outside of steps may run twice.

    Args:
        name: Name of the job, an id; by default the function's, with `-` for `_`.

    Raises:
        Invalid: The decorated object is not a function of two arguments, or the name is not an id.
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
