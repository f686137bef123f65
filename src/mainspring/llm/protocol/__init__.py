"""Formats of callers and upstreams: OpenAI's chat completions, responses and embeddings, Anthropic's messages."""
