"""Guards of language models: what a conversation may bring in, call and give out, by rules that no model decides."""
