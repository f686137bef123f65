"""Scrape configuration of a project's planes, for Prometheus."""

from __future__ import annotations

import json

from mainspring.core.settings import Address


def scrape_config(gateway: Address, control: Address | None, credentials: str, *, tenant: str = "") -> str:
    """Return the scrape configuration of both planes as YAML.

    Args:
        control: `None` where there is no console to be scraped.
        credentials: File on Prometheus's machine with a key that has the scope scrape.
        tenant: Named by the jobs, since one Prometheus has no two of a name.
    """
    lines, of = ["scrape_configs:"], f"-{tenant}" if tenant else ""
    for job, address in (("mainspring-gateway", gateway), ("mainspring-control", control)):
        if address is None:
            continue
        scheme = "https" if address.secure else "http"
        lines += [
            f"  - job_name: {job}{of}",
            f"    scheme: {scheme}",
            "    authorization:",
            f"      credentials_file: {json.dumps(credentials)}",
            "    static_configs:",
            f"      - targets: [{json.dumps(f'{address.host}:{address.port}')}]",
        ]
    return "\n".join(lines) + "\n"
