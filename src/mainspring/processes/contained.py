"""The gateway in a container: `python -m mainspring.processes.contained --project ROOT`, as its first process.

It supervises the gateway's processes, writes logs to standard error, collects orphans that processes leave, and drains
on SIGTERM. The number of processes and the memory of models follow from the container's limits where the settings say
nothing else.

SageMaker, Vertex AI and Azure ML start a container with one argument, `serve`. Then, and only if a variable names the
endpoint, the gateway has the routes of `serving.http.hosted`, which need no key.
"""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Mapping

from mainspring.core.cores import memory_limit
from mainspring.core.environment import SAGEMAKER, Hosting, hosting_variables
from mainspring.core.errors import Invalid, Unavailable
from mainspring.core.settings import Settings
from mainspring.processes.process import run
from mainspring.processes.supervisor import Supervisor
from mainspring.project import Project
from mainspring.project.settings import child_arguments
from mainspring.serving.http.hosted import Hosted
from mainspring.serving.plane.sealed_catalog import SEALED

START_S = 180.0  # in which a container has to be ready, as its start probe has it: processors may be few at the start
_PROCESS = 160 << 20  # bytes of a gateway process without models
_LEAST_SHARE = 4  # of the container's memory that models may have in any case: one such part
_SERVE, _PORT = "serve", "8080"  # a managed service's argument, and the port that it asks unless it names another
_LOCAL = ("file", "sqlite", "memory")

_log = logging.getLogger("mainspring")


def main() -> int:
    """Serve until SIGTERM. Return the exit code."""
    parser = child_arguments("processes.contained")
    parser.add_argument("command", nargs="?", choices=[_SERVE], help="as a managed service starts a container")
    chosen = parser.parse_args()

    def body(project: Project) -> None:
        settings = project.settings
        hosted = hosted_endpoint(project, asked=chosen.command == _SERVE)
        environment = dict(models_memory(settings))
        if hosted:
            environment |= _without_pepper(settings)
            parts = _hosted_parts(settings)
        else:
            _ = project.pepper  # say here that it is missing, not in each process
            parts = ["gateway", "grpc"] if settings.grpc is not None else ["gateway"]
        if settings.catalog.scheme == SEALED:
            project.key_store.mark()  # and that its list of revoked keys is, if it should have one
        supervisor = Supervisor(project, environment, parts, tell=_log.warning, logs_to_files=False, hosted=hosted)
        with supervisor.heeding(), supervisor.running(ready_within_s=START_S):
            while not supervisor.asked_to_stop:
                supervisor.wait(1.0)
                supervisor.collect_orphans()
            _log.info("stopping")

    return run("processes.contained", body, chosen)


def models_memory(settings: Settings) -> Mapping[str, str]:
    """Return the variable with the memory of models, where the container has a limit and the settings have none."""
    limit = memory_limit()
    if limit is None or settings.gateway_memory is not None:
        return {}
    rest = max(limit // _LEAST_SHARE, limit - _PROCESS * (settings.serving_processes + 1))
    return {"MAINSPRING_GATEWAY_MEMORY": str(rest)}


def refuse_hosted() -> None:
    """Raise if the environment asks for the routes of a managed service, which are a container's alone.

    Raises:
        Invalid: It does.
    """
    for each in hosting_variables():
        raise Invalid(
            f"{each.variable} is set, and this is no container that {each.service} starts.",
            fix=f"unset {each.variable}; an image serves by `python -m mainspring.processes.contained --project ROOT`.",
        )


def hosted_endpoint(project: Project, *, asked: bool) -> str:
    """Return the endpoint for which the gateway has the routes of a managed service, as `Hosted.read` reads it; usually
    none.

    Both the service's argument and its variable are needed: one of them alone is there by mistake.

    Args:
        asked: Whether the container was started as the service starts it.

    Raises:
        Invalid: One is there without the other, or the gateway is not one that the service reaches alone.
    """
    given = hosting_variables()
    if not asked and not given:
        return ""
    if not given:
        raise Invalid(
            f"The container was started with the argument `serve`, as SageMaker does it, without {SAGEMAKER}.",
            fix=f"set {SAGEMAKER}, or that of another service, to the endpoint's name, as its kind of target does.",
        )
    if len(given) > 1:
        raise Invalid(f"{' and '.join(each.variable for each in given)} are set.", fix="set that of one service alone.")
    by = given[0]
    if not asked:
        raise Invalid(
            f"{by.variable} is set, and the container was not started as {by.service} does it (`serve`).",
            fix=f"unset {by.variable}: its routes need no key, so only {by.service}'s own network may reach them.",
        )
    named = f"{by.endpoint}@{by.caller}"
    hosted, settings, port = Hosted.read(named), project.settings, by.port
    for setting, name in ((settings.gateway_tls, "gateway_tls_cert"), (settings.grpc, "grpc")):
        if setting is not None:
            raise Invalid(
                f"{by.service} speaks plain HTTP on one port, and the profile {settings.profile!r} sets {name}.",
                fix="name a profile without it in the target.",
            )
    if str(settings.gateway.port) != (port or _PORT):
        raise Invalid(
            f"{by.service} asks port {port or _PORT}, and the gateway listens on {settings.gateway.port}.",
            fix=f"set MAINSPRING_GATEWAY to 0.0.0.0:{port or _PORT}.",
        )
    _check_served(project, hosted, by)
    return named


def _check_served(project: Project, hosted: Hosted, by: Hosting) -> None:
    try:
        served = project.routes.current()
    except Unavailable:  # a catalog on a server; /ping answers 503 until it is known
        return
    if hosted.endpoint not in served:
        raise Invalid(
            f"{by.variable} names the endpoint {hosted.endpoint!r}, which is not served here.",
            fix=f"name one of {', '.join(sorted(served)) or 'none'}.",
        )
    versions = [arm.version for arm in served[hosted.endpoint].arms]
    if hosted.version and hosted.version not in versions:
        raise Invalid(
            f"Endpoint {hosted.endpoint!r} does not serve the version {hosted.version}.",
            fix=f"it serves {', '.join(versions)}: build the image again, and deploy it.",
        )


def _without_pepper(settings: Settings) -> Mapping[str, str]:
    """Return a pepper of this start alone where none is given: no key reaches this container, so none is valid."""
    if settings.pepper or (settings.pepper_file is not None and settings.pepper_file.exists()):
        return {}
    return {"MAINSPRING_PEPPER": secrets.token_hex(32)}


def _hosted_parts(settings: Settings) -> list[str]:
    if settings.catalog.scheme not in (*_LOCAL, SEALED) and settings.lake.scheme not in _LOCAL:
        return ["gateway", "log"]
    _log.warning(
        "The prediction log stays in this container and ends with it: the profile %r has no catalog on a server with a "
        "lake in a bucket.",
        settings.profile,
    )
    return ["gateway"]


if __name__ == "__main__":
    sys.exit(main())
