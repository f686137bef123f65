"""Pipelines: graphs of steps as data, and the declaration that traces a function into one.

`graph` is the data (exporters build on it), `values` what a step is given, `tracing` the words `step`, `pipeline`,
`only_if` and `approval`. Operations run a graph as jobs.
"""
