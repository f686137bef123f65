"""Language models: one surface for callers, upstreams that answer, and what stands between them."""
