"""Vectors of texts: requests and answers, in both directions."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Literal

import msgspec
import numpy as np

from mainspring.llm.model import EmbeddingsReply, EmbeddingsRequest, Usage
from mainspring.llm.protocol.openai.replies import Used, read_usage
from mainspring.llm.protocol.reading import Fields, InvalidField, read_object, split
from mainspring.vectors.model import Floats


class _Embedding(msgspec.Struct):
    model: str
    input: list[str | list[int]]
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None


class _Vector(msgspec.Struct):
    embedding: list[float] | str
    index: int = 0


class _Vectors(msgspec.Struct):
    data: list[_Vector]
    model: str = ""
    usage: Used | None = None


def read_embeddings(body: bytes | memoryview) -> EmbeddingsRequest:
    """Return a request for vectors.

    Raises:
        InvalidField: It is none.
    """
    given = read_object(body)
    inputs = given.get("input")
    if isinstance(inputs, str) or (isinstance(inputs, list) and inputs and isinstance(inputs[0], int)):
        given["input"] = [inputs]
    known, extra = split(given, _Embedding)
    if not known.input:
        raise InvalidField("input: there is none.", "input")
    texts = all(isinstance(each, str) for each in known.input)
    if not texts and any(isinstance(each, str) for each in known.input):
        raise InvalidField("input: it is of texts or of lists of tokens, not of both.", "input")
    found: Any = tuple(known.input) if texts else tuple(map(tuple, known.input))
    return EmbeddingsRequest(
        model=known.model,
        inputs=found,
        dimensions=known.dimensions,
        base64=known.encoding_format == "base64",
        extra=extra,
    )


def write_embeddings_request(request: EmbeddingsRequest, model: str) -> bytes:
    """Return the body of a request to an upstream, for a model as it is called there."""
    body: Fields = {**request.extra, "model": model, "input": request.inputs}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.base64:
        body["encoding_format"] = "base64"
    return msgspec.json.encode(body)


def read_vectors(body: bytes, inputs: int) -> EmbeddingsReply:
    """Return an upstream's vectors.

    Raises:
        msgspec.DecodeError: They are none, or not one for each input.
    """
    given = msgspec.json.decode(body, type=_Vectors)
    data = sorted(given.data, key=lambda each: each.index)
    if [each.index for each in data] != list(range(inputs)):
        raise msgspec.ValidationError(f"There are not {inputs} vectors, one for each input")
    rows = [_floats(each.embedding) for each in data]
    if len({len(row) for row in rows}) != 1 or not len(rows[0]):
        raise msgspec.ValidationError("Vectors differ in length")
    return EmbeddingsReply(vectors=np.stack(rows), model=given.model, usage=read_usage(given.usage), raw=body)


def _floats(given: list[float] | str) -> Floats:
    if not isinstance(given, str):
        return np.array(given, np.float32)
    try:
        return np.frombuffer(base64.b64decode(given, validate=True), "<f4")
    except (binascii.Error, ValueError):
        raise msgspec.ValidationError("A vector is no base64 of float32") from None


def write_vectors(reply: EmbeddingsReply, *, base64_: bool) -> bytes:
    """Return the body for a caller: the upstream's own where it still says the same."""
    if reply.raw:
        return reply.raw
    rows = reply.vectors.astype("<f4")
    usage = reply.usage or Usage()
    told = [base64.b64encode(row.tobytes()).decode() if base64_ else row.tolist() for row in rows]
    data = [{"object": "embedding", "index": number, "embedding": each} for number, each in enumerate(told)]
    used = {"prompt_tokens": usage.prompt, "total_tokens": usage.total}
    return msgspec.json.encode({"object": "list", "data": data, "model": reply.model, "usage": used})
