"""Routes by which a managed service asks a container: `GET /ping` and `POST /invocations`, for one endpoint.

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html. SageMaker checks its callers (IAM's
right `sagemaker:InvokeEndpoint`) and forwards bodies without their credentials, over a network that only it reaches. So
these two routes have one caller, who may predict with that endpoint alone as far as the policies let it, and they take
any Host header. A gateway has them only where its container was started by SageMaker's own command
(`processes.contained`). Vertex AI and Azure ML do likewise; they ask the paths that they are told, which are these.
"""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.core.errors import Invalid
from mainspring.core.ids import check_id
from mainspring.security.model import Action, Binding, KeyScope, Kind, Principal, Role
from mainspring.serving.http.routes import DataRoute, split_path

PING, INVOCATIONS = "/ping", "/invocations"
HOSTED_ROUTES = (
    DataRoute("GET", PING, None, "ping"),
    DataRoute("POST", INVOCATIONS, Action.ENDPOINT_PREDICT, "infer"),
)
CALLER = "sagemaker"  # id of the caller in logs, quotas and costs
CALLERS = (CALLER, "vertex", "azureml")


@dataclass(frozen=True, slots=True)
class Hosted:
    """The endpoint that a managed service's callers reach.

    Attributes:
        version: Its version that answers; empty: those of its route, by their weights.
        caller: Of `CALLERS`.
    """

    endpoint: str
    version: str = ""
    caller: str = CALLER

    @classmethod
    def read(cls, text: str) -> Hosted:
        """Return what `NAME` or `NAME:VERSION` says, with `@CALLER` behind it or without.

        Raises:
            Invalid: It is neither.
        """
        whole, at, caller = text.partition("@")
        caller = caller if at else CALLER
        name, colon, version = whole.partition(":")
        if caller not in CALLERS or (colon and not (version.isascii() and version.isdigit())):
            raise Invalid(f"{text[:100]!r} names no endpoint.", fix="write NAME, or NAME:VERSION such as late:3.")
        return cls(check_id(name, "endpoint"), version, caller)

    @property
    def principal(self) -> Principal:
        may = Binding(Role.ANALYST, f"endpoint/{self.endpoint}")
        return Principal(self.caller, self.caller, frozenset({KeyScope.PREDICT}), Kind.SERVICE, roles=frozenset({may}))

    def split(self, path: str) -> tuple[str, str, str]:
        """Return what `routes.split_path` does, with the endpoint of invocations."""
        return (path, self.endpoint, self.version) if path == INVOCATIONS else split_path(path)
