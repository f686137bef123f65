"""Writes docs/images/console-*.png from the console itself, in a headless Chromium: `make docs-pictures`.

The projects are those of the console's tests, made up; only digests and ids differ from call to call.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

IMAGES = Path(__file__).parent / "images"
WIDTH = 1200
LARGEST_BYTES = 150_000
DRAWN = "[...document.querySelectorAll('.plot')].every((each) => each.classList.contains('drawn'))"


def take(page: Any, url: str, name: str, *, height: int, top: str = "") -> None:
    """Keep what a window of `WIDTH` by `height` shows, from the element `top` on.

    Raises:
        ValueError: The picture is larger than a page of documentation should load.
    """
    page.go(url)
    page.until(DRAWN)
    y = page.do(f"document.querySelector({top!r}).getBoundingClientRect().top - 16") if top else 0
    clip = {"x": 0, "y": y, "width": WIDTH, "height": height, "scale": 1}
    taken = page.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
    data = base64.b64decode(taken["data"])
    if len(data) > LARGEST_BYTES:
        raise ValueError(f"{name} has {len(data)} bytes, more than {LARGEST_BYTES}: take less of the page.")
    (IMAGES / f"console-{name}.png").write_bytes(data)


def take_endpoint(page: Any) -> None:
    """Take the pages of an endpoint with an incident."""
    import mainspring as ms
    from kit.console.flights import populated
    from kit.console.looks import anywhere, log_in, served
    from kit.console.troubled import troubled

    plain = anywhere(populated())
    with served(plain) as address:
        log_in(page, address, plain.key())
        take(page, address, "overview", height=820)
    live = anywhere(populated(monitor=ms.Monitor("late-arrival", fairness=["Schedule.carrier"])))
    made = troubled(live)
    live.predictions.compact()
    live.quality_updates.run("late-arrival")
    with served(live) as address:
        log_in(page, address, live.key())
        here = f"{address}/endpoints/late-arrival"
        take(page, f"{here}/performance", "performance", height=610)
        take(page, f"{here}/drift?column=Weather.humidity", "drift", height=890)
        take(page, f"{here}/fairness?least=20", "fairness", height=520, top=".card:has(#measure)")
        take(page, f"{address}/incidents/{made.weather}", "incident", height=900)


def take_streams(page: Any) -> None:
    """Take the page of all streams."""
    from kit.console.looks import anywhere, log_in, served
    from kit.console.streaming import streaming

    streams = anywhere(streaming())
    with served(streams) as address:
        log_in(page, address, streams.key())
        take(page, f"{address}/streams", "streams", height=620)


def take_fleet(page: Any, folder: Path) -> None:
    """Take the page of a fleet in the middle of a rollout."""
    import msgspec

    from kit.console.flights import Project
    from kit.console.looks import anywhere, log_in, served
    from kit.edge_packages import NAME, package
    from mainspring.core.locks import MemoryLocks
    from mainspring.deploy.edge.repository import Repository
    from mainspring.deploy.fleet.model import QueueDepth, Report
    from mainspring.operations.edge import fleet
    from mainspring.operations.edge.publishing import publish
    from mainspring.security.signing import SigningKey

    now = Project().wall.now()
    made = anywhere(Project(packages=Repository(folder / "edge", folder / "keys", MemoryLocks(), lambda: now)))
    for version in (1, 2):
        publish(made, package(folder, version, key=SigningKey(bytes(32))))
    answered = Report(
        project="flights", device="", package=NAME, version=1, state="running", revision=1, sequence=1, boot="b",
        at=now, mono_us=0, rows=0, errors=0, p99_us=0, queue=QueueDepth(rows=0, size_bytes=0, dropped=0),
    )  # fmt: skip
    for number in range(60):
        name = f"depot-{number:02}"
        registered = fleet.register(made, name, NAME, f"{number:064x}")
        changed: dict[str, Any] = {"rows": 900 + 37 * number, "p99_us": 3_000 + 61 * (number % 9)}
        if number < 15:
            changed["version"] = 2
        elif number == 15:
            changed |= {"failed": {"2": "Row 3 of the golden rows answers 0.41, not 0.44"}, "errors": 12}
        at = now - 3_600_000_000 * (number in (22, 41))
        seen = registered.reported(msgspec.structs.replace(answered, device=name, at=at, **changed), at, kept=False)
        made.fleet.keep([msgspec.structs.replace(seen, wanted=2 if number < 16 else 1)])
    fleet.start(made, NAME, 2)
    with served(made) as address:
        log_in(page, address, made.key())
        take(page, f"{address}/fleet", "fleet", height=760)


def main() -> None:
    root = Path(__file__).parent.parent
    sys.path[:0] = [str(root / "tests"), str(root / "edge-runtime" / "src")]
    from kit.console.chromium import browser
    from kit.console.looks import anywhere, log_in, served
    from kit.console.pipelined import pipelined
    from kit.console.registered import MODEL, registered
    from kit.console.rolled import rolled
    from kit.console.shop import shop
    from kit.console.trials import tried
    from mainspring.registry.runs import NAME

    with TemporaryDirectory() as folder, browser(Path(folder) / "chromium") as chromium:
        page = chromium.page(width=WIDTH, height=900)
        take_endpoint(page)
        take_streams(page)
        take_fleet(page, Path(folder))
        flights = anywhere(registered(Path(folder) / "project"))
        with served(flights) as address:
            log_in(page, address, flights.key())

            take(
                page,
                f"{address}/models/{MODEL}/versions/34/evaluation",
                "evaluation",
                height=900,
                top=".card:has(form)",
            )
        begun = rolled(reason="0.006 more AUC, and smaller")
        rollouts = anywhere(begun.project)
        with served(rollouts) as address:
            log_in(page, address, rollouts.key())
            take(page, f"{address}/rollouts/{begun.rolled_back}", "rollout", height=900, top="#why-card")
        (Path(folder) / "flows").mkdir()
        runs = pipelined(Path(folder) / "flows")
        pipelines = anywhere(runs.project)
        with served(pipelines) as address:
            log_in(page, address, pipelines.key())
            take(page, f"{address}/pipelines/nightly/runs/{runs.asking}", "pipeline", height=700)
        orders = anywhere(shop())
        with served(orders) as address:
            log_in(page, address, orders.key())
            take(page, f"{address}/features/Orders", "features", height=760)
        trials = anywhere(tried())
        chosen = [run.id for run in trials.tracking.search(limit=1000) if run.tags.get(NAME, "").startswith("trial-")][
            :8
        ]
        with served(trials) as address:
            log_in(page, address, trials.key())
            take(
                page,
                f"{address}/runs/compare?{'&'.join(f'run={run}' for run in chosen)}",
                "runs",
                height=450,
                top=".card:has(.parallel)",
            )


if __name__ == "__main__":
    main()
