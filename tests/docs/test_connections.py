"""The table of all connections has every module that can open or accept one, and tests that show its certificates."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from docs.test_threat_model import is_run
from kit.adapter_tables import TABLES

ROOT = Path(__file__).parents[2]
LIBRARIES = ("apache_beam", "boto3", "confluent_kafka", "google.cloud", "grpc", "http.client", "httpx", "nats",
             "obstore",             "opentelemetry.exporter",
             "paho", "psycopg", "pymilvus", "pyspark", "ray", "redis", "requests", "smtplib", "socket",
             "snowflake.connector", "tuf.ngclient",
             "urllib.request", "mainspring.core.http_exchange", "mainspring.core.listening",
             "mainspring.core.ray_cluster", "mainspring.operations.plane_connection")  # fmt: skip
CALLS = ("create_connection", "create_engine", "DeltaTable", "open_unix_connection")
NAMED = re.compile(rf"\b({'|'.join(map(re.escape, LIBRARIES))})\b|{'|'.join(CALLS)}")
MUTUAL = "integration/test_mutual_tls.py::test_"

# To whom, as in the table, and by which modules; the test of a row that has client certificates.
ROWS: dict[str, tuple[str, str]] = {
    "gateway": (
        "client.transport processes.gateway serving.http.acceptor serving.http.connection serving.http.server",
        "integration/test_client_tls.py::test_a_client_with_a_certificate_is_answered",
    ),
    "gRPC": ("serving.grpc.server serving.grpc.service", "integration/test_grpc_up.py::test_mutual_tls"),
    "console": ("console.server", "integration/test_tls.py::test_the_console_over_mutual_tls"),
    "gateway, console": (
        "operations.bench.gateway operations.demo.replay operations.plane_connection operations.predict "
        "operations.process_checks operations.security_checks operations.signing_in serving.load.generator",
        "integration/test_client_tls.py::test_the_command_shows_a_certificate",
    ),
    "each other": (
        "core.confined core.deadlines core.listening core.own_process features.functions.child "
        "operations.jobs.children operations.jobs.work_loop operations.service.sampling processes.service_manager "
        "processes.supervisor processes.task "
        "project.function_process registry.processes serving.adapters.apart serving.plane.slots",
        "",
    ),
    "other machines of a training": (
        "deploy.meeting.guest deploy.meeting.host deploy.meeting.lines deploy.meeting.tunnel "
        "operations.distributed.machines",
        "unit/deploy/test_meeting.py::test_strangers_reach_nothing",
    ),
    "Postgres": (
        "core.catalog core.database_locks features.adapters.postgres operations.migrate.sql project.server_checks "
        "registry.adapters.mlflow_store registry.adapters.mlflow_tables vectors.adapters.pgvector_database",
        "integration/test_profile_check.py::test_postgres_that_wants_mutual_tls",
    ),
    "Redis, Valkey": (
        "features.adapters.redis llm.adapters.redis_budgets project.tenant_checks",
        "conformance/test_online_stores_servers.py::test_rediss_is_mutual_tls_and_trusts_only_whom_it_is_told_to",
    ),
    "Milvus": (
        "vectors.adapters.milvus vectors.adapters.milvus_connection",
        "conformance/test_vectors_milvus.py::test_mutual_tls",
    ),
    "Vault": ("security.adapters.key_vault", f"{MUTUAL}vault"),
    "NATS": ("data.adapters.log_nats", "conformance/test_log_nats.py::test_mutual_tls_whose_files_are_renewed"),
    "MQTT": ("deploy.adapters.mqtt", "integration/test_edge_fleet.py::test_devices_with_client_certificates"),
    "Kafka": ("data.adapters.log_kafka", f"{MUTUAL}kafka"),
    "another installation's console": (
        "security.adapters.anchors_installation",
        f"{MUTUAL}another_installation_that_keeps_anchors",
    ),
    "webhooks, Alertmanager, PagerDuty": ("core.http_exchange monitoring.adapters.notify_http", f"{MUTUAL}a_webhook"),
    "mail": ("monitoring.adapters.notify_email", f"{MUTUAL}a_mail_server"),
    "OTLP": ("operations.service.otlp serving.plane.tracing", f"{MUTUAL}a_collector"),
    "S3, GCS, Azure, Kinesis, KMS, SageMaker": (
        "core.object_store_url data.adapters.deltaobjects data.adapters.deltareads data.adapters.log_kinesis "
        "deploy.adapters.targets.sagemaker "
        "operations.backup.stores operations.cost.storage operations.pipelines.aws_lambda registry.adapters.objects "
        "security.adapters.anchors_s3 security.adapters.key_awskms training.loop.objects",
        "",
    ),
    "the metadata service of a cloud": (
        "training.preemption.aws training.preemption.azure training.preemption.gcp training.preemption.metadata",
        "",
    ),
    "other ranks": ("training.boosting.rows training.distributed.agent training.distributed.machine", ""),
    "OpenID Connect": ("security.issuers", ""),
    "upstreams of language models": (
        "llm.adapters.connections vectors.adapters.cross_service vectors.adapters.encoder_service "
        "vectors.adapters.service_calls",
        f"{MUTUAL}an_upstream_of_language_models",
    ),
    "Snowflake, BigQuery": ("data.adapters.warehouse_bigquery data.adapters.warehouse_snowflake", ""),
    "a mirror of Debian": ("deploy.images.store", ""),
    "Kubernetes": ("deploy.engines.kubernetes_api", f"{MUTUAL}kubernetes"),
    "Ray, Spark, Beam": (
        "core.ray_cluster deploy.adapters.beam_chunks deploy.adapters.ray deploy.adapters.ray_agent "
        "deploy.adapters.ray_chunks deploy.adapters.ray_machines deploy.adapters.ray_ranks deploy.adapters.spark "
        "deploy.adapters.spark_chunks features.functions.on_ray",
        "",
    ),
    "broker, packages, console": (
        "mainspring_edge.link mainspring_edge.updates mainspring_edge.upload",
        f"{MUTUAL}what_devices_fetch_and_upload",
    ),
}
# Of each scheme that an adapter has; those of files and of memory connect to nothing.
SCHEMES = {
    **dict.fromkeys(("postgresql", "postgres"), "Postgres"),
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys"), "Redis, Valkey"),
    **dict.fromkeys(("milvus", "milvuss"), "Milvus"),
    **dict.fromkeys(("s3", "gs", "az", "kinesis", "awskms"), "S3, GCS, Azure, Kinesis, KMS, SageMaker"),
    **dict.fromkeys(("nats", "tls"), "NATS"),
    **dict.fromkeys(("mqtt", "mqtts"), "MQTT"),
    **dict.fromkeys(("http", "https"), "another installation's console"),
    "kafka": "Kafka",
    "bigquery": "Snowflake, BigQuery",
    "snowflake": "Snowflake, BigQuery",
    "vault": "Vault",
}
NONE = {"file", "sqlite", "duckdb", "lmdb", "memory", "sealed", "pkcs11", "keyring"}


def table() -> list[list[str]]:
    page = (ROOT / "docs/howto/run-it.md").read_text()
    part = page.partition("### All connections\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line[:1] == "|"][2:]


def connecting() -> Iterator[str]:
    """Yield the modules that import, when they run, what can open or accept a connection."""
    for folder in ("src/mainspring", "edge-runtime/src/mainspring_edge"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text()
            if NAMED.search(text) and any(map(_connects, _running(ast.parse(text)))):
                name = ".".join(path.relative_to(ROOT / folder).with_suffix("").parts)
                yield name if folder.startswith("src") else f"mainspring_edge.{name}"


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module that are not for the checker of types alone."""
    left = [node]
    while left:
        yield (node := left.pop())
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
                left.append(child)


def _connects(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return getattr(node.func, "attr", getattr(node.func, "id", "")).endswith(CALLS)
    names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return any(f"{name}.".startswith(f"{library}.") for name in names for library in LIBRARIES)


def test_every_module_that_connects_is_in_a_row() -> None:
    assert sorted(module for modules, _ in ROWS.values() for module in modules.split()) == sorted(connecting())


def test_every_adapter_is_in_a_row() -> None:
    assert {scheme for each in TABLES.values() for scheme in each} == SCHEMES.keys() | NONE
    assert set(SCHEMES.values()) <= ROWS.keys()


def test_rows_with_client_certificates_have_a_test_that_runs() -> None:
    assert {row[1] for row in table()} == ROWS.keys()
    for _, to, _, mutual, _ in table():
        if mutual in ("", "by the kernel", "theirs") or mutual.startswith("none"):
            assert to == "each other" or not ROWS[to][1]
        else:
            assert is_run(ROWS[to][1]), to
