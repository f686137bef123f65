"""The environment of this process: the only module that touches `os.environ`.

Settings are read from it in `project.settings` alone. Other code only passes it on to child processes, or sets what a
library reads from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

# Variables of processes that serve, unless they are set. Each has a request's work for one core, beside other
# processes: where these share the cores, threads of NumPy's library wait for one another, which takes processor time.
FOR_SERVING = {"OPENBLAS_NUM_THREADS": "1"}


def variables() -> Mapping[str, str]:
    """Return the environment, for `project.settings`."""
    return os.environ


def for_child(changes: Mapping[str, str], defaults: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child process: this one's, with some variables changed.

    Args:
        defaults: Variables that are set where this one's has none.
    """
    return {**(defaults or {}), **os.environ, **changes}


def manager_socket() -> tuple[str, int]:
    """Return the socket of the service manager that started this process, and the microseconds that its watchdog waits;
    empty and 0 where there is none."""
    pid = os.environ.get("WATCHDOG_PID", "")
    watchdog = os.environ.get("WATCHDOG_USEC", "") if pid in ("", str(os.getpid())) else ""
    return os.environ.get("NOTIFY_SOCKET", ""), int(watchdog) if watchdog.isdigit() else 0


# Variables with the endpoint that a container of a managed service answers for.
SAGEMAKER = "MAINSPRING_SAGEMAKER_ENDPOINT"
VERTEX = "MAINSPRING_VERTEX_ENDPOINT"
AZUREML = "MAINSPRING_AZUREML_ENDPOINT"
_SERVICES = {
    SAGEMAKER: ("SageMaker", "sagemaker", "SAGEMAKER_BIND_TO_PORT"),
    VERTEX: ("Vertex AI", "vertex", "AIP_HTTP_PORT"),
    AZUREML: ("Azure ML", "azureml", ""),
}


@dataclass(frozen=True, slots=True)
class Hosting:
    """A managed service that started this container.

    Attributes:
        variable: By which it is known, with the endpoint's name.
        service: For messages; `caller`: id of its callers.
        port: That it asks; empty if it does not say.
    """

    variable: str
    service: str
    caller: str
    endpoint: str
    port: str


def hosting_variables() -> list[Hosting]:
    """Return the managed services that variables name; more than one are a mistake."""
    return [
        Hosting(variable, service, caller, os.environ[variable], os.environ.get(port, ""))
        for variable, (service, caller, port) in _SERVICES.items()
        if os.environ.get(variable)
    ]


def rank_variables() -> dict[str, str]:
    """Return the variables by which torchrun, or another launcher, tells a process its rank."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
    return {name: os.environ[name] for name in names if name in os.environ}


def cuda_variables() -> dict[str, str]:
    """Return the variables by which CUDA and MPS are told what a process may use."""
    return {name: value for name, value in os.environ.items() if name.startswith("CUDA_")}


MAIN_RANK = "MAINSPRING_MAIN_RANK"  # variable with the first rank's address, where the store is reached by another


def main_rank_address() -> str:
    """Return the address of the first rank, as a launcher tells it; by default loopback."""
    return os.environ.get(MAIN_RANK, os.environ.get("MASTER_ADDR", "127.0.0.1"))


# Variables that a library may need, and none that could be a secret; names that end with _ are beginnings.
_HARMLESS = (
    "PATH", "HOME", "LANG", "LANGUAGE", "LC_", "TZ", "TZDIR", "PYTHON_", "PYTHONPATH", "PYTHONHASHSEED", "OMP_", "KMP_",
    "OPENBLAS_", "MKL_", "NUMEXPR_", "VECLIB_", "MALLOC_", "ARROW_", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
    "CUDA_", "NVIDIA_", "TORCH_", "KERAS_", "HF_HOME", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TOKENIZERS_",
)  # fmt: skip


def for_foreign_code(changes: Mapping[str, str], defaults: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a process that runs code which must not see this one's secrets; `defaults` as of
    `for_child`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _HARMLESS or any(name.startswith(each) for each in _HARMLESS if each.endswith("_"))
    }
    return {**(defaults or {}), **kept, **changes}


def set_variable(name: str, value: str, *, default: bool = False) -> None:
    """Set a variable for a library that reads it.

    Args:
        default: Whether to keep an existing value.
    """
    if not default or name not in os.environ:
        os.environ[name] = value


@contextmanager
def overridden(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables inside the block, and restore their values after it."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
