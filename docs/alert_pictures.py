"""Writes docs/images/prometheus-alerts.png: a real Prometheus that scrapes a gateway whose requests come too late.

Run by `make docs-pictures`. Prometheus, Alertmanager and Chromium must be installed. Rules and scrape configuration are
the exported ones; only the interval is shorter, a fifth of a second.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

PICTURE = Path(__file__).parent / "images" / "prometheus-alerts.png"
WIDTH, HEIGHT = 1200, 620
LARGEST_BYTES = 150_000
ALERT = "MainspringErrorBudgetBurn"
SHOWN = f"""[...document.querySelectorAll(".alert_header")].some((each) => each.textContent.includes("{ALERT}"))"""
# The firing alert with details and annotations. Its expression, which is long, and the folder of the rules are cut.
OPENED = """(() => {
    document.querySelector("#inactiveAlerts").click();
    document.querySelectorAll(".alert-danger.alert_header").forEach((each) => each.click());
    document.querySelectorAll(".alert_details pre").forEach((each) => each.remove());
    document.querySelector("div.show-annotations").click();
    document.querySelectorAll("#alertsTable > tbody > tr > td").forEach((each) => {
        if (each.textContent.includes(".rules.yml >")) each.textContent = each.textContent.trim().replace(/^.*\\//, "");
    });
})()"""


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    import mainspring as ms
    from kit.console.chromium import browser
    from kit.fleet import BODY, INFER, Fleet
    from kit.prometheus import alertmanager, prometheus
    from kit.waiting import wait_until
    from mainspring.core.settings import Address
    from mainspring.monitoring.service.prometheus_rules import rules, yaml
    from mainspring.monitoring.service.prometheus_scrape import scrape_config

    promised = ms.Monitor("late-arrival", objectives=[ms.objectives.availability(0.99)])
    with TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder) / "project", workers=1)
        fleet.publish("1", deadline_us=1)  # no request can make it
        address = Address("127.0.0.1", fleet.port)
        files = {
            "mainspring.scrape.yml": scrape_config(address, address, "mainspring.key"),
            "mainspring.rules.yml": yaml(rules([promised])),
            "mainspring.key": fleet.key,
        }
        with fleet.up(), alertmanager() as manager, prometheus(files, manager) as server:
            wait_until(lambda: "mainspring-gateway" in server.healthy(), "a scrape")

            def alerted() -> bool:
                for _ in range(5):
                    fleet.ask("POST", INFER, BODY)
                return any(labels["alertname"] == ALERT for labels in manager.alerts())

            wait_until(alerted, "the alert at Alertmanager", every_s=0.1)
            with browser(Path(folder) / "chromium") as chromium:
                page = chromium.page(width=WIDTH, height=HEIGHT)
                page.go(f"http://127.0.0.1:{server.port}/classic/alerts")  # the only one in Debian's package
                page.until(SHOWN)
                page.do(OPENED)
                clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": 1}
                taken = page.call("Page.captureScreenshot", format="png", clip=clip)
    data = base64.b64decode(taken["data"])
    if len(data) > LARGEST_BYTES:
        raise ValueError(f"The picture has {len(data)} bytes, more than {LARGEST_BYTES}: take less of the page.")
    PICTURE.write_bytes(data)


if __name__ == "__main__":
    main()
