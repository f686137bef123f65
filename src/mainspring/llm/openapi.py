"""Routes of language models, answers and collections in the gateway's OpenAPI document.

Bodies of OpenAI's and Anthropic's protocols are described by those: https://github.com/openai/openai-openapi.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mainspring.llm.routes import LLM_ROUTES

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_WHOLE: Schema = {"type": "integer"}
_ANY: Schema = {"type": "object"}
_REFUSED: Mapping[str, str] = {
    "400": "The request is none of the protocol, or asks for what is not possible.",
    "401": "The API key is missing, unknown, revoked or expired.",
    "403": "The API key may not do this, or has no role for the tenant.",
    "404": "There is no such language model, chain of answers or collection.",
    "408": "The body was not received in time.",
    "409": "The collection was built with another encoder.",
    "413": "The body is too large, as sent or decompressed.",
    "415": "The Content-Encoding is not one of gzip, deflate, identity.",
    "429": "Too many wait, or a quota of the caller is spent.",
    "500": "A part of the server failed.",
    "502": "The upstream failed, or broke off.",
    "503": "The upstream is away, or the collection has no build yet.",
    "504": "The upstream did not answer in time.",
    "507": "The prediction log has no space left; there is no answer.",
}
_SAYS: Mapping[str, str] = {
    "/v1/chat/completions": "OpenAI's chat completion by a language model or a chain of answers.",
    "/v1/responses": "OpenAI's response by a language model or a chain of answers; nothing is stored.",
    "/v1/messages": "Anthropic's message by a language model or a chain of answers.",
    "/v1/messages/count_tokens": "Anthropic's count of a prompt's tokens: the upstream's, or an estimate that says so.",
    "/v1/embeddings": "OpenAI's embeddings of texts or lists of tokens.",
    "/v1/models": "The language models and chains of answers that the caller may see.",
    "/v1/models/{model}": "One of them.",
    "/v1/answers/{model}": "An answer with citations, or that nothing was found; in events as it is written.",
    "/v1/answers/{model}/ratings": "Keeps what a caller says of an answer that it got; the last rating counts.",
    "/v1/collections/{collection}/search": "The nearest chunks of each query.",
}
_FIELDS: Mapping[str, Sequence[str]] = {
    "/v1/chat/completions": ("model", "messages"),
    "/v1/responses": ("model", "input"),
    "/v1/messages": ("model", "messages"),
    "/v1/messages/count_tokens": ("model", "messages"),
    "/v1/embeddings": ("model", "input"),
}
_FILTER: Schema = {
    "description": "OpenAI's comparison or compound filter.",
    "oneOf": [
        {
            "type": "object",
            "required": ["type", "key", "value"],
            "additionalProperties": False,
            "properties": {
                "type": {"enum": ["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]},
                "key": _TEXT,
                "value": {},
            },
        },
        {
            "type": "object",
            "required": ["type", "filters"],
            "additionalProperties": False,
            "properties": {
                "type": {"enum": ["and", "or"]},
                "filters": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Filter"}},
            },
        },
    ],
}
_REF: Schema = {"$ref": "#/components/schemas/Filter"}
_TENANT: Schema = {**_TEXT, "description": "Needed where the caller may search several tenants' documents."}
_PLACE: Schema = {
    "chunk": {"type": ["string", "null"]},
    "source": {"type": ["string", "null"], "description": "Key of the document; null where it identifies a person."},
    "start": {**_WHOLE, "description": "Of the first character, in the document."},
    "end": _WHOLE,
    "path": {"type": "array", "items": _TEXT, "description": "Headings above it."},
    "text": {"type": ["string", "null"]},
    "score": _NUMBER,
}
_SCHEMAS: Mapping[str, Schema] = {
    "LanguageError": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": {"type": "object", "required": ["message"], "properties": {"message": _TEXT}}},
    },
    "Filter": _FILTER,
    "Question": {
        "type": "object",
        "required": ["question"],
        "additionalProperties": False,
        "properties": {
            "question": {**_TEXT, "minLength": 1, "maxLength": 20_000},
            "conversation": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["role", "content"],
                    "additionalProperties": False,
                    "properties": {"role": {"enum": ["user", "assistant"]}, "content": _TEXT},
                },
            },
            "filter": _REF,
            "tenant": _TENANT,
            "keys": {"type": "object", "description": "Entity keys by which the record is erased."},
            "session": {**_TEXT, "description": "Name of the conversation, which a rollout keeps in one version."},
            "stream": {
                "type": "boolean",
                "description": "Answer in events: rewritten, retrieved, reranked, text, answer, or error.",
            },
        },
    },
    "Answer": {
        "type": "object",
        "required": ["id", "text", "found", "citations", "usage", "cost"],
        "properties": {
            "id": {**_TEXT, "description": "Of its record in the prediction log."},
            "text": _TEXT,
            "found": {"type": "boolean"},
            "reason": {"enum": ["nothing retrieved", "nothing cited", "declined", None]},
            "citations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {**_PLACE, "number": _WHOLE, "at": {"type": "array", "items": _WHOLE}},
                },
            },
            "usage": _ANY,
            "cost": {**_NUMBER, "description": "In the project's currency."},
        },
    },
    "Rating": {
        "type": "object",
        "required": ["answer", "rating"],
        "additionalProperties": False,
        "properties": {
            "answer": {**_TEXT, "description": "Id of the answer."},
            "rating": {
                "description": "A number, or for a column of Booleans up or down.",
                "oneOf": [{"type": "boolean"}, _NUMBER, {"enum": ["up", "down"]}],
            },
            "column": {**_TEXT, "description": "Of the chain's feedback; needed where there are several."},
            "reason": {**_TEXT, "maxLength": 2_000, "description": "Where the source has a column of that name."},
        },
    },
    "Rated": {
        "type": "object",
        "required": ["answer", "column", "rating"],
        "properties": {"answer": _TEXT, "column": _TEXT, "rating": {"type": ["boolean", "number"]}},
    },
    "Search": {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "query": {"oneOf": [_TEXT, {"type": "array", "minItems": 1, "maxItems": 100, "items": _TEXT}]},
            "vector": {
                "oneOf": [
                    {"type": "array", "items": _NUMBER},
                    {"type": "array", "maxItems": 100, "items": {"type": "array", "items": _NUMBER}},
                ]
            },
            "k": {"type": "integer", "minimum": 1, "maximum": 1_000},
            "filter": _REF,
            "tenant": _TENANT,
            "mode": {"enum": ["vectors", "words", "hybrid"]},
        },
        "oneOf": [{"required": ["query"]}, {"required": ["vector"]}],
    },
    "Found": {
        "type": "object",
        "required": ["collection", "index", "results"],
        "properties": {
            "collection": _TEXT,
            "index": _TEXT,
            "withheld": {"type": "array", "items": _TEXT},
            "results": {
                "type": "array",
                "items": {
                    "type": "array",
                    "items": {"type": "object", "properties": {**_PLACE, "fields": _ANY, "places": _ANY}},
                },
            },
        },
    },
}
_RATINGS = "/v1/answers/{model}/ratings"
_UNSTREAMED = ("/v1/embeddings", "/v1/messages/count_tokens", "/v1/collections/{collection}/search", _RATINGS)
_BODIES = {
    "/v1/answers/{model}": ("Question", "Answer"),
    _RATINGS: ("Rating", "Rated"),
    "/v1/collections/{collection}/search": ("Search", "Found"),
}


def described(asked: Iterable[str], searched: Iterable[str]) -> tuple[Schema, Schema]:
    """Return the paths of the routes, and their schemas.

    Args:
        asked: Language models and chains of answers that the caller may see.
        searched: Collections that the caller may search.
    """
    names = {"model": sorted(asked), "collection": sorted(searched)}
    paths: Schema = {}
    for route in LLM_ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route.method, route.path, names)
    return paths, dict(_SCHEMAS)


def _operation(method: str, path: str, names: Mapping[str, Sequence[str]]) -> Schema:
    request, reply = _BODIES.get(path, ("", ""))
    statuses = _REFUSED if method == "POST" else ("400", "401", "403", "404", "503")
    words = [part.strip("{}") for part in path.split("/")[2:]]
    answered: Schema = {"application/json": {"schema": _schema(reply)}}
    streams = method == "POST" and path not in _UNSTREAMED
    if streams:
        answered["text/event-stream"] = {"schema": _TEXT}
    made: Schema = {
        "operationId": "_".join(["v1", method.lower(), *words]),
        "summary": _SAYS[path],
        "security": [{"key": []}],
        "responses": {
            "202" if path == _RATINGS else "200": {
                "description": "Server-sent events where they were asked for." if streams else "",
                "content": answered,
            },
            **{
                status: {
                    "description": _REFUSED[status],
                    "content": {"application/json": {"schema": _schema("LanguageError")}},
                }
                for status in statuses
            },
        },
    }
    for name, known in names.items():
        if f"{{{name}}}" in path:
            schema: Schema = {**_TEXT, "examples": list(known)} if known else _TEXT
            made["parameters"] = [{"name": name, "in": "path", "required": True, "schema": schema}]
    if method == "POST":
        required = list(_FIELDS.get(path, ()))
        body = _schema(request) if request else {**_ANY, "required": required, "properties": {"model": _TEXT}}
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return made


def _schema(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"} if name else _ANY
