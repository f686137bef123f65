"""Clients that request predictions from an endpoint: `Client(url, key=...)` and `AsyncClient`. The extra
`mainspring[client]`.
"""

from mainspring.client.aio import AsyncClient
from mainspring.client.certificates import Certificates
from mainspring.client.failures import ServerFailed
from mainspring.client.results import Inference, ModelInfo, Prediction, Predictions, ServerInfo, TensorInfo
from mainspring.client.retrying import Retries
from mainspring.client.sync import Client
from mainspring.core.errors import (
    DeadlineExceeded,
    Denied,
    Invalid,
    MainspringError,
    NotFound,
    Overloaded,
    Unavailable,
)

__all__ = [
    "AsyncClient",
    "Certificates",
    "Client",
    "DeadlineExceeded",
    "Denied",
    "Inference",
    "Invalid",
    "MainspringError",
    "ModelInfo",
    "NotFound",
    "Overloaded",
    "Prediction",
    "Predictions",
    "Retries",
    "ServerFailed",
    "ServerInfo",
    "TensorInfo",
    "Unavailable",
]
