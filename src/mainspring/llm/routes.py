"""The routes of the gateway for language models."""

from __future__ import annotations

from mainspring.security.model import Action
from mainspring.serving.http.routes import DataRoute

LLM_ROUTES: tuple[DataRoute, ...] = (
    DataRoute("POST", "/v1/chat/completions", Action.ENDPOINT_PREDICT, "chat", in_body=True),
    DataRoute("POST", "/v1/responses", Action.ENDPOINT_PREDICT, "responses", in_body=True),
    DataRoute("POST", "/v1/messages", Action.ENDPOINT_PREDICT, "messages", in_body=True),
    DataRoute("POST", "/v1/messages/count_tokens", Action.ENDPOINT_PREDICT, "count_tokens", in_body=True),
    DataRoute("POST", "/v1/embeddings", Action.ENDPOINT_PREDICT, "embeddings", in_body=True),
    DataRoute("POST", "/v1/answers/{model}", Action.ENDPOINT_PREDICT, "ask"),
    DataRoute("POST", "/v1/answers/{model}/ratings", Action.ENDPOINT_PREDICT, "rate"),
    DataRoute("POST", "/v1/collections/{collection}/search", Action.COLLECTION_SEARCH, "search"),
    DataRoute("GET", "/v1/models", Action.GATEWAY_OPEN, "models"),
    DataRoute("GET", "/v1/models/{model}", Action.ENDPOINT_DESCRIBE, "model"),
)
