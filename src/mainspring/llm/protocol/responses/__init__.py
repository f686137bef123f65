"""OpenAI's responses, as a server of them: read as requests for messages, and answered from any upstream.

Source: https://github.com/openai/openai-openapi. Nothing is stored: what refers to an earlier response is refused.
"""

from mainspring.llm.protocol.responses.replies import EventWriter, write_reply
from mainspring.llm.protocol.responses.requests import read_request

__all__ = ["EventWriter", "read_request", "write_reply"]
