"""Language models: their upstreams, use and budgets, and the calls of tools that wait for a person."""
