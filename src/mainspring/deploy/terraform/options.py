"""Options of the kind `terraform`."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from typing import Literal

import msgspec

from mainspring.deploy.networks import is_private_network
from mainspring.deploy.sagemaker.options import check_topic

_CLASS = re.compile(r"db\.[a-z0-9-]+\.[a-z0-9]+")
_CERTIFICATE = re.compile(r"arn:aws(-us-gov)?:acm:[a-z0-9-]+:\d{12}:certificate/[0-9a-f-]+")
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_TABLE = re.compile(r"[A-Za-z0-9_]+")
# Days that CloudWatch can keep logs for, up to two years.
_LOG_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731)


class TerraformOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of the kind `terraform`.

    Attributes:
        cloud: `aws`.
        folder: Where the module is written, relative to the project.
        certificate: ARN of the load balancer's certificate.
        hosts: Names under which callers reach the gateway and the console: those of the certificate.
        zones: Letters of two zones of the region.
        network: Addresses of the network that is made, a private network of 16 to 22 bits.
        clients: Private networks that may call, beside that one.
        scrapers: Private networks from which Prometheus reaches each task.
        project_folder: Folder of the project in the image.
        tables: Tables of the lake, beside predictions, to which gateways add: sources of ratings.
        worker_cpu: Cores of the worker and the console.
        worker_memory_mib: Their memory, MiB.
        database: Instance class of the database.
        database_gib: Storage of the database, GiB: at first, and at most.
        database_authority: File in the image with the database's authorities; without one the connection to it is
            encrypted, and the server is not verified.
        protected: Whether the load balancer and the database are protected from deletion, and removed secrets are kept.
        notify: ARN of a topic of SNS that is told of alarms; without one there are none.
        highly_available: Whether the database has a standby in another zone.
        keep_logs: Days that logs are kept.
        keep_backups: Days that backups of the database, and replaced objects of the bucket, are kept.
    """

    cloud: Literal["aws"] = "aws"
    folder: str = "deploy/terraform"
    certificate: str
    hosts: list[str]
    zones: tuple[str, str] = ("a", "b")
    network: str = "10.64.0.0/20"
    clients: list[str] = []
    scrapers: list[str] = []
    project_folder: str = "/project"
    tables: list[str] = []
    worker_cpu: float = 1.0
    worker_memory_mib: int = 4096
    database: str = "db.t4g.small"
    database_gib: tuple[int, int] = (20, 100)
    database_authority: str = ""
    highly_available: bool = True
    protected: bool = True
    notify: str = ""
    keep_logs: int = 30
    keep_backups: int = 14

    def __post_init__(self) -> None:
        if not _CERTIFICATE.fullmatch(self.certificate):
            raise ValueError(f"certificate is {self.certificate!r}: write the ARN of a certificate in ACM")
        if not self.hosts or not all(map(_HOST.fullmatch, self.hosts)):
            raise ValueError(f'hosts is {self.hosts!r}: write the names of the certificate: ["models.example.org"]')
        if len(set(self.zones)) != 2 or not all(re.fullmatch("[a-f]", each) for each in self.zones):
            raise ValueError(f'zones is {list(self.zones)}: write two letters of zones, such as ["a", "b"]')
        for each in (self.network, *self.clients, *self.scrapers):
            if not is_private_network(each):
                raise ValueError(f'{each!r} is no private network: write such as "10.64.0.0/20"')
        if not 16 <= IPv4Network(self.network).prefixlen <= 22:
            raise ValueError(f"network is {self.network!r}: write one of 16 to 22 bits")
        if wrong := [each for each in self.tables if not _TABLE.fullmatch(each)]:
            raise ValueError(f"tables has {wrong[0]!r}: write names of sources")
        for name in ("project_folder", "database_authority"):
            value = getattr(self, name)
            if value and not re.fullmatch(r"/[A-Za-z0-9._/-]+", value):
                raise ValueError(f"{name} is {value!r}: write an absolute path of letters, digits and ._-")
        check_topic(self.notify)
        if not _CLASS.fullmatch(self.database):
            raise ValueError(f"database is {self.database!r}: write a class of instances, such as db.t4g.small")
        self._check_kept()

    def _check_kept(self) -> None:
        first, most = self.database_gib
        if not 20 <= first <= most <= 65_536 or first < most < first * 1.1:
            raise ValueError(
                f"database_gib is {[first, most]}: write at least 20, and a tenth more at most, or the same"
            )
        if self.keep_logs not in _LOG_DAYS:
            raise ValueError(
                f"keep_logs is {self.keep_logs}: CloudWatch keeps logs {', '.join(map(str, _LOG_DAYS))} days"
            )
        if not 1 <= self.keep_backups <= 35:
            raise ValueError(f"keep_backups is {self.keep_backups}: write a number of days from 1 to 35")
