"""Networks: nothing reaches a pod and a pod reaches nothing, but what is listed; and the route from outside."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any

from mainspring.deploy.manifests.kinds import Object, made_of
from mainspring.deploy.manifests.serving.gateways import GATEWAY
from mainspring.deploy.manifests.serving.options import KubernetesOptions, Placed
from mainspring.deploy.manifests.serving.workers import CONTROL_PORT, WORKER

_SPACE = "kubernetes.io/metadata.name"
_API_PORTS = (443, 6443)
_DNS: Object = {
    "to": [
        {"namespaceSelector": {"matchLabels": {_SPACE: "kube-system"}}},
        {"ipBlock": {"cidr": "169.254.20.10/32"}},  # the cache of a node
    ],
    "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
}


def policies(placed: Placed, options: KubernetesOptions, addresses: Sequence[str]) -> list[Object]:
    """Return the policies of the network.

    Args:
        addresses: `HOST:PORT` of the profile's servers.
    """
    outward = egress([*addresses, *options.egress])
    route = options.gateway.split("/")[0] if options.gateway else ""
    monitoring = [options.monitoring] if options.monitoring else []
    spaces = sorted({*options.clients, *filter(None, [route]), *monitoring})
    found = [
        _policy(placed, "deny", "", [], []),
        _policy(placed, GATEWAY, GATEWAY, [_from(spaces, placed.deployment.port)], outward),
    ]
    if placed.deployment.worker:
        api = [{"ports": [{"port": port, "protocol": "TCP"} for port in _API_PORTS]}] if options.steps else []
        inward = [_from(monitoring, CONTROL_PORT)]
        found.append(_policy(placed, WORKER, WORKER, inward, [*outward, *api]))
    return found


def closed(
    placed: Placed, component: str, spaces: Sequence[str], outward: list[Object], *, among: bool = False
) -> list[Object]:
    """Return the policies of pods that others made of our objects, whose ports are theirs to choose.

    Args:
        spaces: Namespaces beside the own one from which they are reached.
        among: Whether the pods reach each other.
    """
    others = [{"namespaceSelector": {"matchLabels": {_SPACE: space}}} for space in sorted(spaces)]
    fellows = [{"to": [{"podSelector": {"matchLabels": placed.selector(component)}}]}] if among else []
    inward = [{"from": [{"podSelector": {}}, *others]}]
    return [
        _policy(placed, "deny", "", [], []),
        _policy(placed, component, component, inward, [*outward, *fellows]),
    ]


def egress(addresses: Iterable[str]) -> list[Object]:
    """Return rules by which pods reach DNS and addresses.

    A policy cannot name a host: for one outside of the cluster its port is opened.
    """
    rules: dict[str, list[Any]] = {}
    open_ports = set[int]()
    for each in sorted(set(addresses)):
        host, _, port = each.rpartition(":")
        if (peer := _peer(host)) is None:
            open_ports.add(int(port))
        else:
            rules.setdefault(port, []).append(peer)
    found = [{"to": peers, "ports": [{"port": int(port), "protocol": "TCP"}]} for port, peers in rules.items()]
    if open_ports:
        found.append({"ports": [{"port": port, "protocol": "TCP"} for port in sorted(open_ports)]})
    return [_DNS, *found]


def _peer(host: str) -> Object | None:
    """Return who a host is for a policy; `None` if a policy cannot say it."""
    try:
        return {"ipBlock": {"cidr": str(ipaddress.ip_network(host.strip("[]")))}}
    except ValueError:
        pass
    parts = host.split(".")
    if len(parts) >= 3 and parts[2] == "svc":
        return {"namespaceSelector": {"matchLabels": {_SPACE: parts[1]}}}
    return None


def _from(spaces: Sequence[str], port: int) -> Object:
    """Return the rule that lets pods of the own namespace and of others reach a port."""
    others = [{"namespaceSelector": {"matchLabels": {_SPACE: space}}} for space in spaces]
    return {"from": [{"podSelector": {}}, *others], "ports": [{"port": port, "protocol": "TCP"}]}


def _policy(placed: Placed, name: str, component: str, inward: list[Object], outward: list[Object]) -> Object:
    spec: Object = {
        "podSelector": {"matchLabels": placed.selector(component)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": inward,
        "egress": outward,
    }
    return made_of(
        "NetworkPolicy", f"{placed.name}-{name}", placed.options.namespace, placed.labels(component), spec=spec
    )


def routes(placed: Placed, options: KubernetesOptions) -> list[Object]:
    """Return the route from a Gateway, which has the certificates, to the service."""
    if not options.gateway:
        return []
    space, name, *listener = options.gateway.split("/")
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": space, "name": name}
    paths = [{"path": {"type": "PathPrefix", "value": value}} for value in ("/v1", "/v2")]
    backend = {"name": f"{placed.name}-{GATEWAY}", "port": placed.deployment.port}
    spec = {
        "parentRefs": [{**parent, **({"sectionName": listener[0]} if listener else {})}],
        "hostnames": list(options.hosts),
        "rules": [{"matches": paths, "backendRefs": [backend]}],
    }
    return [made_of("HTTPRoute", f"{placed.name}-{GATEWAY}", options.namespace, placed.labels(GATEWAY), spec=spec)]
