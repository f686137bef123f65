"""Environments of other engines below `.venv-engines`, which the first deep run makes."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mainspring.core.locks import FileLocks

ROOT = Path(__file__).resolve().parents[2]
_FOLDER = ROOT / ".venv-engines"
VERSIONS = {
    "airflow": "apache-airflow==3.3.2",
    "prefect": "prefect==3.9.1",
    "dagster": "dagster==1.13.29",
    "kubeflow": "kfp==2.17.3",
    "kubernetes": "kubernetes-validate==1.37.0 kubeflow-trainer-api==2.3.0 kubeflow-training==1.9.4",
    "ray": "ray==2.60.0",
    "spark": "pyspark==4.3.0",
    "beam": "apache-beam==2.77.0",  # its pyarrow is older than this one's
    "vertex": "google-cloud-aiplatform==2.7.0",
    "azureml": "azure-ai-ml==1.35.2 azure-mgmt-monitor==7.0.0",
    "cleanlab": "cleanlab==2.9.0",
    "snowflake": "fakesnow==0.12.1 snowflake-connector-python==3.18.1",  # with which fakesnow was made
    "bigquery": "google-cloud-bigquery==3.47.0 google-cloud-bigquery-storage==2.43.0",
    "snowflake-client": "snowflake-connector-python==5.2.0",
}
BESIDE = (
    "kubernetes",
    "ray",
    "spark",
    "beam",
    "bigquery",
    "snowflake",
    "snowflake-client",
)  # environments that also see the packages of this one


def python_of(engine: str) -> Path:
    """Return the interpreter of an engine's environment, which is made if it is not there."""
    folder = _FOLDER / engine
    done = folder / VERSIONS[engine]
    with FileLocks(_FOLDER / "locks").hold(engine, wait_s=550):
        if not done.exists():
            python = str(folder / "bin" / "python")
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            if engine in BESIDE:
                version = f"python{sys.version_info.major}.{sys.version_info.minor}"
                seen = folder / "lib" / version / "site-packages" / "beside.pth"
                seen.write_text(sysconfig.get_path("purelib") + "\n")
            subprocess.run([python, "-m", "pip", "install", "-q", *VERSIONS[engine].split()], check=True)
            done.touch()
    return folder / "bin" / "python"


@contextmanager
def ray_cluster(*cpus: int) -> Iterator[Any]:
    """Yield a Ray cluster of nodes on this machine, with so many processors each; the first is its head.

    Ray kills actors of a machine whose memory is almost used up, by whatever: other tests may use it.
    """
    from ray.cluster_utils import Cluster

    quiet = {
        "include_dashboard": False,
        "_system_config": {"prestart_worker_first_driver": False, "worker_niceness": 0, "memory_monitor_refresh_ms": 0},
    }
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], **quiet})
    try:
        for each in cpus[1:]:
            made.add_node(num_cpus=each)
        yield made
    finally:
        made.shutdown()
