"""The data plane as a process: `python -m mainspring.processes.gateway --project ROOT [--profile P]`.

Under the supervisor several of these processes serve one address: each inherits a socket and has a slot.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.ledger.model import Prediction
from mainspring.llm.answering import assemble, local_budgets
from mainspring.llm.answers.rating import FOLDER as RATINGS
from mainspring.llm.answers.rating import KeptRatings
from mainspring.llm.budgets import Budgets
from mainspring.llm.machine_budgets import MachineBudgets
from mainspring.llm.search_log import SearchLog
from mainspring.llm.surface import LanguageSurface
from mainspring.llm.usage import FOLDER as USAGE
from mainspring.llm.usage import Usages
from mainspring.processes.catalog_copy import copy_catalog
from mainspring.processes.process import log, run
from mainspring.processes.tracing import traced
from mainspring.project import Project
from mainspring.project.devices import devices
from mainspring.project.erasure_mark import ErasureMark
from mainspring.project.executors import executors
from mainspring.project.explainers import load_explainer
from mainspring.project.guards import guarded
from mainspring.project.language_models import AppliedModels, shared_budgets, shared_parts
from mainspring.project.model_memory import model_memory
from mainspring.project.retrieval import Retrieval
from mainspring.project.settings import child_arguments
from mainspring.security.keys import Authenticator
from mainspring.serving.http.gateway import Gateway
from mainspring.serving.http.hosted import Hosted
from mainspring.serving.http.server import serve
from mainspring.serving.plane.counts import FILE, Counts
from mainspring.serving.plane.slots import Slots, folder
from mainspring.serving.plane.uses import FOLDER as USES
from mainspring.serving.plane.uses import Uses

if TYPE_CHECKING:
    from mainspring.serving.plane.tracing import Tracing


def build_gateway(
    project: Project,
    tracing: Tracing | None = None,
    counts: Counts | None = None,
    budgets: Budgets | None = None,
    workers: int = 1,
    slot: int | None = None,
    hosted: Hosted | None = None,
) -> Gateway:
    """Return the gateway over the project's adapters.

    Args:
        budgets: Of language models; by default this process's alone.
        workers: How many processes the gateway has.
        slot: Which of them this is; `None` for one apart from them, of whose decisions no log is kept.
        hosted: The endpoint that SageMaker asks for.
    """
    catalog = copy_catalog(project)
    if budgets is None:
        budgets = local_budgets()
    uses = Uses(project.settings.state / USES, project.wall.now())
    usages = Usages(project.settings.state / USAGE, project.wall, uses)
    erasures = ErasureMark(lambda: project.erasures)
    shared = shared_parts(project, budgets, workers, erasures)

    def find(id: str) -> Prediction:  # opened by the first rating
        return project.predictions.find(id)

    return Gateway(
        routes=catalog,
        bundles=project.bundles,
        online=project.online,
        log=project.prediction_log,
        executors=executors(project),
        explainers=load_explainer,
        authenticator=Authenticator(
            catalog, project.pepper, project.wall, accounts=catalog, workloads=project.workloads(waits=False)
        ),
        authoriser=project.authoriser,
        clock=project.clock,
        allowed_hosts=project.allowed_hosts,
        max_body_bytes=project.settings.max_body_bytes,
        tracing=tracing,
        catalog=catalog,
        counts=counts,
        erasures=erasures,
        memory=model_memory(project.settings, "" if slot is None else f"gateway-{slot}"),
        uses=uses,
        hosted=hosted,
        devices=devices(project, 0 if slot is None else slot, "" if slot is None else f"gateway-{slot}"),
        surface=LanguageSurface(
            AppliedModels(
                catalog.further,
                project.settings.upstreams,
                guarded(project, partial(assemble, shared=shared)),
                Retrieval(project, lambda within_s: catalog.further() if catalog.look(within_s) else None, usages),
                erasures,
            ),
            project.authoriser,
            usages,
            shared.states,
            budgets=budgets,
            ratings=KeptRatings(project.settings.state / RATINGS, find),
            traced=tracing is not None,
            searched=SearchLog(project.prediction_log, project.clock),
        ),
    )


def main() -> int:
    """Serve until SIGTERM. Return the exit code."""
    parser = child_arguments("processes.gateway")
    parser.add_argument("--listener", type=int, help="the descriptor of a socket that listens already")
    parser.add_argument("--slot", type=int, default=0, help="which of the gateway's processes this is, from 0")
    parser.add_argument("--slots", type=int, default=1, help="how many there are")
    parser.add_argument("--hosted", default="", help="endpoint that SageMaker asks for, NAME or NAME:VERSION")
    parser.add_argument("--apart", type=Path, help="where its own socket is; without TLS, and none of the supervisor's")
    chosen = parser.parse_args()

    def body(project: Project) -> None:
        settings = project.settings
        listener = socket.socket(fileno=chosen.listener) if chosen.listener is not None else None
        certificates = None if chosen.apart else settings.gateway_tls
        if certificates is not None:
            from mainspring.security import tls

            tls.check(certificates, now=project.wall.now())
        at = f"{settings.gateway.url}, slot {chosen.slot}"
        place = chosen.apart or folder(settings.state)

        def started() -> None:
            # Existing objects stay; searching them for cycles would block everything for 50 to 80 ms.
            gc.collect()
            gc.freeze()
            log.info("gateway listens on %s", at)

        counts = Counts(place / FILE)
        budgets = shared_budgets(project) or MachineBudgets.within(place, project.wall, spent=counts)
        with traced(project, f"gateway-{chosen.slot}") as tracing:
            hosted = Hosted.read(chosen.hosted) if chosen.hosted else None
            slot = None if chosen.apart else chosen.slot
            serving = serve(
                build_gateway(project, tracing, counts, budgets, chosen.slots, slot, hosted),
                settings.gateway,
                listener=listener,
                limits=settings.gateway_limits,
                tls=certificates,
                slots=Slots(place, chosen.slot, chosen.slots, settings.labels),
                started=started,
            )
            asyncio.run(_served(serving, budgets))
        log.info("gateway ended")

    return run("gateway", body, chosen)


async def _served(serving: Awaitable[None], budgets: Budgets) -> None:
    try:
        await serving
    finally:
        await budgets.close()


if __name__ == "__main__":
    sys.exit(main())
