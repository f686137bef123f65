"""Ports of serving: which versions stand behind which endpoint, what runs and explains a version's model, and
what endpoints can do."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mainspring.registry.model import Bundle, TensorSpec
from mainspring.serving.devices.device import Opening
from mainspring.serving.explanation import Contributions, Method
from mainspring.serving.model import Baseline, Route
from mainspring.serving.simulation_report import SimulationReport

if TYPE_CHECKING:
    import numpy as np


class RoutingTable(Protocol):
    """Routes of the endpoints, for a gateway, which polls for changes."""

    def revision(self) -> int:
        """Return the table's revision, 0 while nothing was published. Cheap."""
        ...

    def current(self) -> Mapping[str, Route]:
        """Return endpoint -> route."""
        ...


class Routes(RoutingTable, Protocol):
    """The routing table, for writers, who replace it whole."""

    def publish(self, routes: Sequence[Route], *, after: int | None = None) -> int:
        """Replace the whole table in one step and return its revision; an equal table keeps its revision.

        Args:
            after: Revision before the state was read that these routes follow from; by default any.

        Raises:
            Conflict: The table has another revision than `after`. Nothing is published.
        """
        ...


class Baselines(Protocol):
    """Measured capacities of endpoints. Nothing is ever changed."""

    def add(self, baseline: Baseline) -> None:
        """Store a measurement."""
        ...

    def newest(self, endpoint: str, count: int = 1) -> Sequence[Baseline]:
        """Return an endpoint's last measurements, up to `count`, by `measured_at`, the newest first."""
        ...


class Simulations(Protocol):
    """The last simulation of each endpoint."""

    def put(self, report: SimulationReport) -> None:
        """Store a report in place of the endpoint's former one."""
        ...

    def last(self, endpoint: str) -> SimulationReport | None:
        """Return an endpoint's last report; `None` if it has none, or one of another form than today's."""
        ...


class Executor(Protocol):
    """One bundle's model, ready to answer. Threads may share it; a row's answer never depends on the rows beside it.

    A model of columns takes a sequence of values a column, `None` for null. A model of tensors takes an array a tensor,
    of exactly its type, or nested lists.
    """

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name, in order. A column has the shape (-1,)."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name, in order."""
        ...

    @property
    def inline(self) -> bool:
        """True if a short call may run on the event loop; otherwise every call runs in a thread."""
        ...

    def nullable(self, name: str) -> bool:
        """Return whether an input takes a null in a list of values: as NaN among floats, as an empty string among
        strings."""
        ...

    def predict(self, inputs: Mapping[str, Sequence[Any] | np.ndarray[Any, Any]], rows: int) -> dict[str, Any]:
        """Return output -> array, whose first dimension is `rows`.

        Args:
            inputs: Input -> values, `rows` of them. Others than `inputs` names are ignored.

        Raises:
            Invalid: An input is missing, of another type or shape, or holds a value that the model cannot take.
            ModelFailed: The model gave up on these rows.
        """
        ...

    def close(self) -> None:
        """Release the model. Idempotent. `predict` is not called afterwards."""
        ...


class Yielding(Executor, Protocol):
    """An executor of a model whose answer may come in parts."""

    @property
    def yields(self) -> bool:
        """Whether it does."""
        ...

    def events(
        self, inputs: Mapping[str, Sequence[Any] | np.ndarray[Any, Any]], rows: int
    ) -> Generator[dict[str, Any], None, None]:
        """Yield answers of the form of `predict`, each computed when it is asked for; the last is the whole one. Close
        the generator to end it early. Arguments and errors as of `predict`."""
        ...


Loader = Callable[[Bundle], Executor]  # raises Corrupt where the bundle's model is not what its manifest says


class DeviceExecutors(Protocol):
    """Makes the executors of models on devices."""

    @property
    def runtime(self) -> str:
        """Name and version of the runtime: sizes of models hold for it alone."""
        ...

    def begin(self, opening: Opening) -> None:
        """Have the device ready, with what every model needs there.

        Raises:
            DeviceUnusable: It cannot be used.
        """
        ...

    def make(self, bundle: Bundle, opening: Opening) -> Executor:
        """Return the executor of a model on a device.

        Raises:
            DeviceUnusable: The model cannot run there.
            Corrupt: As of a `Loader`.
        """
        ...


class Explainer(Protocol):
    """Contributions of the columns of one bundle's model. Threads may share it."""

    @property
    def method(self) -> Method:
        """How contributions are computed."""
        ...

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Columns by name, in order."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name, in order."""
        ...

    def explain(self, inputs: Mapping[str, Sequence[Any] | np.ndarray[Any, Any]], rows: int) -> Contributions:
        """Return the contributions of every column, shape (rows, columns, outputs); arguments and errors as of
        `Executor.predict`."""
        ...

    def close(self) -> None:
        """Release the model. Idempotent."""
        ...


ExplainerLoader = Callable[[Bundle], Explainer]  # raises `NotExplainable` where the bundle has no exact explanation
