"""Targets of the kinds `vertex` and `azureml` with every option, for tests."""

from __future__ import annotations

from typing import Any

from mainspring.security.signing import SigningKey

SIGN = SigningKey(b"k" * 32).sign
IMAGE = "europe-west4-docker.pkg.dev/shop-prod/models/shop@sha256:" + "0f" * 32
TRAINING = {
    "trainings": ["late"],
    "training_image": IMAGE,
    "spot": True,
    "training_hours": 8,
}
VERTEX: dict[str, Any] = {
    "project": "shop-prod",
    "service_account": "gateway@shop-prod.iam.gserviceaccount.com",
    "clients": ["shop-web", "shop-batch"],
    "kms_key": "projects/shop-prod/locations/europe-west4/keyRings/models/cryptoKeys/vertex",
    "network": "projects/12345/global/networks/private",
    "bucket": "gs://shop-prod-training/runs",
    "pipelines": {"nightly": "https://europe-west4-kfp.pkg.dev/shop-prod/pipelines/nightly/v1"},
    "training_machine": "g2-standard-8",
    **TRAINING,
}
AZURE: dict[str, Any] = {
    "subscription": "00000000-1111-2222-3333-444444444444",
    "resource_group": "shop-models",
    "workspace": "shop",
    "machine": "Standard_F4s_v2",
    "identity": "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/shop-models/providers/"
    "Microsoft.ManagedIdentity/userAssignedIdentities/gateway",
    "training_machine": "Standard_E8s_v5",
    **TRAINING,
}
