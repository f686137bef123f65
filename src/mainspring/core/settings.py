"""The one frozen set of settings that every process is built from.

`project.settings` reads it; nothing else reads the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mainspring.core.errors import Invalid
from mainspring.core.money import Money
from mainspring.core.sandbox import Policy

LOWEST_PRIORITY = 19  # of nice
PROJECT_FILE = "mainspring.toml"  # in the folder of a project


@dataclass(frozen=True, slots=True, repr=False)
class Url:
    """Address of a backend: `sqlite:////absolute/x.db` (as SQLAlchemy writes it), `file:///folder`, `memory://`,
    `redis://:password@host:6379/0`. `text` may hold a password; `shown` is printed."""

    text: str

    def __repr__(self) -> str:
        return f"Url({self.shown!r})"

    @property
    def shown(self) -> str:
        """The address without a password, and without the part after `?`, which may contain another."""
        parts = urlsplit(self.text)
        _, at, host = parts.netloc.rpartition("@")
        user = (parts.username or "") + (":***" if parts.password else "")
        return urlunsplit((parts.scheme, f"{user}{at}{host}", parts.path, "", "")) if at or parts.query else self.text

    @property
    def scheme(self) -> str:
        return urlsplit(self.text).scheme

    @property
    def path(self) -> Path:
        return Path("/" + urlsplit(self.text).path.lstrip("/"))


_ON_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (listened on elsewhere)


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port to listen on. Port 0 means any free one; `secure` means TLS."""

    host: str
    port: int
    secure: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        host, _, port = text.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise Invalid(
                f"{text!r} is not an address.", fix="write host:port, such as 127.0.0.1:8080, with a port up to 65535."
            )
        return cls(host.strip("[]"), int(port))

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        return self.host in ("127.0.0.1", "::1", "localhost")

    @property
    def here(self) -> Address:
        """The address at which this machine reaches it: loopback where it listens on all, which no caller may name."""
        return replace(self, host=_ON_ALL.get(self.host, self.host))


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files. With `client_ca`, a caller must present a certificate signed by one of its authorities.
    `allows_1_2`: TLS 1.2 is spoken beside 1.3."""

    cert: Path
    key: Path
    client_ca: Path | None = None
    allows_1_2: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one process that serves HTTP."""

    connections: int = 1024  # for a further one the longest idle is closed; if none is idle, it waits
    receiving_bytes: int = 128 << 20  # of all arriving bodies together
    header_bytes: int = 1 << 20  # of a request's head; a body is read in pieces of up to this size
    idle_us: int = 30_000_000  # between a connection's opening or last reply and the end of the next request's head
    body_us: int = 10_000_000  # for a body to arrive
    drain_us: int = 10_000_000  # time at the end to answer requests in flight
    stale_us: int = 3_600_000_000  # how long unconfirmed routes and keys stay valid


@dataclass(frozen=True, slots=True)
class Traces:
    """OTLP collector over HTTP, such as `http://127.0.0.1:4318`, and the share of the traces that begin here to sample,
    from 0 to 1."""

    url: str
    share: float = 1.0


CHUNK_ENGINES = ("ray", "spark", "beam")  # of batch runs
TRAINING_KINDS = ("jobset", "trainjob", "pytorchjob")  # of objects of Kubernetes that train
TRAINING_RUNNERS = ("local", "ray")  # of trainings in several processes


@dataclass(frozen=True, slots=True)
class Engines:
    """Where steps of pipelines, batch runs and trainings run that ask for another place than this machine."""

    ray: str = ""  # address of a cluster; empty: Ray is started on this machine
    ray_cpus: str = "1"  # of each process of a training
    ray_gpus: str = ""  # the same; empty: 1 if the cluster has them for all, else 0
    ray_wait: str = "1m"  # for the cluster to give a training room
    training_runner: str = "local"  # one of TRAINING_RUNNERS
    spark: str = "local[*]"  # master
    beam: str = ""  # options, as on Beam's command line; empty: in this process
    kubernetes_image: str = ""
    kubernetes_folder: str = "/project"  # the project's folder in the image
    kubernetes_namespace: str = "default"
    kubernetes_config: str = "~/.kube/config"  # outside of a cluster
    kubernetes_secret: str = ""  # whose entries are the pod's environment
    kubernetes_cpu: str = "1"
    kubernetes_memory: str = "2Gi"


@dataclass(frozen=True, slots=True, repr=False)
class Receiver:
    """Where messages to one receiver go, and how this project is known there. The address may be a secret itself."""

    name: str
    url: str = ""  # https://..., or smtp://host:587
    secret: str = ""  # that signs a webhook; the password of SMTP; PagerDuty's routing key
    user: str = ""  # of SMTP
    sender: str = ""  # of e-mails
    to: tuple[str, ...] = ()
    ca: str = ""  # PEM file of authorities; by default the machine's
    cert: str = ""  # PEM file of a client certificate
    cert_key: str = ""  # PEM file of its key; empty: `cert` has it
    in_clear: bool = False  # whether http, or SMTP without TLS, may reach another machine

    def __repr__(self) -> str:
        return f"Receiver({self.name!r})"


@dataclass(frozen=True, slots=True)
class UpstreamServer:
    """A server of language models, and how this project is known there."""

    name: str
    url: str  # with the path that its protocol begins with, such as https://host/v1
    key: str = field(default="", repr=False)
    key_file: Path | None = None  # that has it instead
    protocol: str = "openai"  # or "anthropic"
    ca: Path | None = None  # PEM file of authorities; by default the machine's
    cert: Path | None = None  # PEM file of a client certificate
    cert_key: Path | None = None  # PEM file of its key; `None`: `cert` has it


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer of signed tokens, and for whom its tokens have to be."""

    url: str  # exactly as the tokens have it
    audiences: tuple[str, ...]
    hosts: tuple[str, ...] = ()  # from which its keys may come, beside its own
    keys: Path | None = None  # file with its JWK set, in place of its discovery document
    ca: Path | None = None  # PEM file of authorities; by default the machine's


@dataclass(frozen=True, slots=True)
class SignIn:
    """The identity provider of people (OpenID Connect), and who of them is admitted."""

    issuer: TrustedIssuer
    client_id: str
    client_secret: str = field(default="", repr=False)  # empty, and no file: a public client
    client_secret_file: Path | None = None
    redirect: str = ""  # the console's address for the way back; empty: as it listens
    cli_client_id: str = ""  # public client of the command line; empty: the same client
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    groups_claim: str = "groups"
    name_claim: str = "name"
    allowed_groups: tuple[str, ...] = ()
    allowed_domains: tuple[str, ...] = ()  # of e-mail addresses that the provider has verified


@dataclass(frozen=True, slots=True)
class Workload:
    """Tokens that stand for a service account: by a subject, or its pattern, and by further claims."""

    account: str  # name of the service account
    subject: str
    claims: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkloadIssuer:
    """A platform whose workloads have tokens."""

    name: str
    issuer: TrustedIssuer
    workloads: tuple[Workload, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSetting:
    """Where a project is deployed: a table of `targets` in the project's file.

    Attributes:
        kind: Kind of the target, such as `systemd`.
        profile: Profile of the project that is used there.
        endpoints: Names of those that are deployed; empty: all.
        memory: Bytes of a gateway; 0: by the measured memory of its models.
        secrets: Names of variables whose values the place gives.
        options: Of the kind alone.
    """

    name: str
    kind: str
    profile: str
    endpoints: tuple[str, ...] = ()
    image: str = ""
    replicas: tuple[int, int] = (1, 1)
    cpu: float = 1.0
    memory: int = 0
    gpus: int = 0
    port: int = 8080
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    region: str = ""
    worker: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WarehouseSetting:
    """The warehouse of a profile, and how this project is known there."""

    url: Url
    tables: Mapping[str, str] = field(default_factory=dict)  # source -> table; others have the source's name
    arrivals: Mapping[str, str] = field(default_factory=dict)  # source -> column that orders its rows by arrival
    lateness: Mapping[str, str] = field(default_factory=dict)  # source -> how much earlier rows are read again
    max_scan: int | None = None  # bytes that one statement may read; `None`: any number
    timeout_us: int = 3_600_000_000  # of one statement
    connect_timeout_us: int = 10_000_000  # until a server counts as unreachable
    read_features: bool = False  # whether offline reads and trainings read features there unless told otherwise
    time_travel: bool = True  # whether they read the tables as of an instant, where the dialect can
    key_file: Path | None = None  # private key of Snowflake, or a file of Google's with credentials
    key_password: str = field(default="", repr=False)  # of an encrypted private key
    password: str = field(default="", repr=False)  # or a token that Snowflake takes in its place
    password_file: Path | None = None  # that has it instead

    def table(self, source: str) -> str:
        """Return the name of a source's table there."""
        return self.tables.get(source, source)


@dataclass(frozen=True, slots=True)
class ScheduleSetting:
    """A periodic job of the worker: `when` is a duration or five cron fields, in UTC."""

    name: str
    job: str
    when: str
    argument: str = "null"  # JSON
    priority: int = 0


@dataclass(frozen=True, slots=True)
class OwnPrices:
    """Prices that a profile states, of this machine and of others."""

    machine: Money | None = None  # of an hour of this machine; `None`: as `instance`
    instance: str = ""  # what this machine is: PROVIDER/REGION/INSTANCE
    purchase: str = "on_demand"  # how it is bought
    discount: float = 0.0  # share off list prices
    currency: str = ""  # in which amounts are shown; empty: that of the machine's price
    instances: Mapping[str, Money] = field(default_factory=dict)  # PROVIDER/REGION/INSTANCE -> of an hour
    storage: Mapping[str, Money] = field(default_factory=dict)  # class -> of a GiB in a month
    in_gib: Money | None = None
    out_gib: Money | None = None
    exchange: Mapping[str, Money] = field(default_factory=dict)  # currency -> what a unit of it is worth
    regions: tuple[str, ...] = ()  # PROVIDER/REGION in which data may live, or patterns of them


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a process: its backends' addresses and its limits."""

    project: str  # its name
    root: Path  # the folder of mainspring.toml; `policies` in it has the project's own policies
    modules: tuple[str, ...]
    profile: str
    state: Path  # root / ".mainspring", unless the profile sets another
    catalog: Url
    lake: Url
    online: Url
    tracking: Url
    blobs: Url
    ledger: Url
    gateway: Address
    control: Address
    allowed_hosts: tuple[str, ...]  # in addition to the addresses listened on
    clock: str  # "system", or "replay" for the demo's loopback profile
    max_body_bytes: int
    monitor_window_us: int
    materialise_every_us: int
    debug: bool
    streams: Url = Url("memory://")
    vectors: Url = Url("memory://")
    checkpoints: Url | None = None  # of trainings on several machines, which all see it
    gateway_workers: int = 1
    gateway_memory: int | None = None  # bytes of all models in all processes that serve; `None`: without a bound
    gateway_devices: tuple[str, ...] = ()  # GPUs for models that ask for one; empty: all that are visible
    gateway_device_memory: int | None = None  # bytes of each for models, of all processes; `None`: nine tenths
    model_time_us: int = 10_000_000  # maximum duration of a call of an ONNX model
    model_memory_bytes: int = 2 << 30  # of a call whose cost depends on the values of the request
    isolation: Policy = field(default_factory=Policy)  # of processes that run models and functions
    approvals: int = 0  # number that every version needs to go live
    gateway_limits: Limits = Limits()
    gateway_liveness_us: int = 10_000_000  # silence after which a gateway is killed
    gateway_tls: Tls | None = None
    control_tls: Tls | None = None
    grpc: Address | None = None  # `None`: gRPC is off
    grpc_workers: int = 1
    metrics: str = ""  # address of an OTLP collector over HTTP that gets the metrics; empty: none does
    traces: Traces | None = None  # `None`: tracing is off
    keep_predictions_us: int | None = None  # `None`: for ever
    keep_sketches_us: int | None = None  # of predictions, from which windows are computed; `None`: for ever
    keep_versions_us: int = 3_600_000_000  # of ingested tables that no dataset commit names
    keep_messages_us: int | None = 604_800_000_000  # in the embedded log; `None`: for ever
    keep_messages_bytes: int | None = None  # of each topic there; `None`: any number
    training_price: tuple[float, str] | None = None  # per hour, with its currency; `None`: unknown
    batch_price: tuple[float, str] | None = None  # likewise, of batch inference
    prices: OwnPrices = OwnPrices()
    warehouse: WarehouseSetting | None = None  # `None`: there is none
    team: str = ""  # that pays for work which nothing else says the team of; empty: nobody
    schedules: tuple[ScheduleSetting, ...] = ()
    jobs_at_once: int = 2  # of a worker
    shadow_nice: int = 19  # priority of the processes of shadows, as of nice: 0 is usual, 19 the lowest
    webhook_secret: str = field(default="", repr=False)  # empty: deliveries are refused
    pepper: bytes = field(default=b"", repr=False)  # of API keys; empty: the file's, or the state folder's own
    pepper_file: Path | None = None
    keys_folder: Path | None = None  # of an installation's keys, which a container copies into its state folder
    revoked_keys_file: Path | None = None  # ids of keys that a sealed catalog has and that were revoked since
    bundles_signed_by: bytes = b""  # public key of the installation that seals bundles; empty: this one's own
    blobs_encrypted: bool = False  # whether new bundles are
    online_encrypted: bool = False  # whether states in the online store are, and new ones of stream endpoints
    pii_encrypted: bool = False  # whether columns marked `pii` are, in new rows of the lake
    encryption: Url = Url("file:")  # of the service that holds the master keys
    encryption_keep_us: int = 3_600_000_000  # how long an unwrapped data key is used without asking that service
    fleet: Url | None = None  # broker of the devices; `None`: there are none
    fleet_unseen_us: int = 86_400_000_000  # after which a device that has not reported is an incident
    audit_anchors: tuple[Url, ...] = ()  # places of the audit log's heads, beside the file in the state folder
    audit_anchored: tuple[bytes, ...] = ()  # public keys of the installations whose heads are kept here
    models_signed_by: tuple[Path, ...] = ()  # PEM files, of each of which somebody has to have signed added files
    fleet_root_key: Path | None = None  # file with the key of the root role; `None`: beside the others
    receivers: Mapping[str, Receiver] = field(default_factory=dict)  # by `project.receivers.variable` of the name
    upstreams: Mapping[str, UpstreamServer] = field(default_factory=dict)  # of language models, by name
    engines: Engines = Engines()
    sign_in: SignIn | None = None  # `None`: with API keys alone
    workload_issuers: tuple[WorkloadIssuer, ...] = ()
    targets: Mapping[str, TargetSetting] = field(default_factory=dict)  # by name
    tenant: str = ""  # who shares the profile's servers with others; empty: nobody

    @property
    def scope(self) -> str:
        """Name of the installation on shared servers: `TENANT..PROJECT`, without a tenant the project's name."""
        return f"{self.tenant}..{self.project}" if self.tenant else self.project

    @property
    def memory_a_process(self) -> int | None:
        """Bytes that the models of one process may take; `None` without a bound."""
        return None if self.gateway_memory is None else max(1, self.gateway_memory // self.serving_processes)

    @property
    def serving_processes(self) -> int:
        """Number of processes that answer predictions: the gateway's, then those of gRPC."""
        return self.gateway_workers + (self.grpc_workers if self.grpc is not None else 0)

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels of every metric, and fields of spans: the tenant, if there is one."""
        return {"tenant": self.tenant} if self.tenant else {}
