"""OpenAI's chat completions and embeddings, in both directions: as a server of them and as a client.

Source: https://github.com/openai/openai-openapi. Servers that speak it differ in details; what is optional there is
optional here.
"""

from mainspring.llm.protocol.openai.embeddings import (
    read_embeddings,
    read_vectors,
    write_embeddings_request,
    write_vectors,
)
from mainspring.llm.protocol.openai.replies import DONE, EventReader, EventWriter, read_event, read_reply, write_reply
from mainspring.llm.protocol.openai.requests import read_request, write_request

__all__ = [
    "DONE",
    "EventReader",
    "EventWriter",
    "read_embeddings",
    "read_event",
    "read_reply",
    "read_request",
    "read_vectors",
    "write_embeddings_request",
    "write_reply",
    "write_request",
    "write_vectors",
]
