"""Connection of this process to a Ray cluster."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mainspring.core.environment import set_variable
from mainspring.core.errors import Unavailable

# Without the mode Ray sends no token to an address that it is given, even if it has one.
AUTHENTICATION = "RAY_AUTH_MODE=token and the token as RAY_AUTH_TOKEN in the environment"
_connecting = threading.Lock()


def connect(address: str, code: Path | None = None, without: Sequence[str] = ()) -> None:
    """Connect this process to a cluster, or start Ray on this machine, unless it is connected.

    Args:
        code: Folder that Ray copies to each node, where it is the working folder; `without` files of these patterns,
            and those that its `.gitignore` names.

    Raises:
        Unavailable: There is no cluster.
    """
    import ray

    with _connecting:
        if ray.is_initialized():
            return
        set_variable("RAY_USAGE_STATS_ENABLED", "0", default=True)
        more: dict[str, Any] = {} if address else {"include_dashboard": False}
        if code is not None:
            more["runtime_env"] = {"working_dir": str(code), "excludes": [".git/", "__pycache__/", *without]}
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level="warning", **more)
        except Exception as error:  # so Ray says that a node has not started in time
            raise Unavailable(
                f"Ray at {address or 'this machine'} does not answer: {error}",
                fix=f"check the setting ray; a cluster that asks for a token needs {AUTHENTICATION}.",
            ) from error
