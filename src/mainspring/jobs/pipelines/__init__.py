"""Pipelines: graphs of steps as data, and the declaration that traces a function into one.

`graph` is the data (exporters build on it), `values` what a step is given. `steps` and `declaring` have the words of a
project, in which `traced` stands for what is not known yet. Operations run a graph as jobs.
"""
