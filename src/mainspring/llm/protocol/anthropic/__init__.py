"""Anthropic's messages, in both directions: as a server of them and as a client.

Source: https://docs.anthropic.com/en/api/messages.
"""

from mainspring.llm.protocol.anthropic.replies import EventReader, EventWriter, read_reply, write_reply
from mainspring.llm.protocol.anthropic.requests import read_request, write_counted, write_request

__all__ = ["EventReader", "EventWriter", "read_reply", "read_request", "write_counted", "write_reply", "write_request"]
