"""Adapters by URL scheme, in a file for each room. A new backend adds one line to its port's table; plug-ins add an
entry point.

An entry point in the group `mainspring.<port>` named after its scheme is called with the `Context`.
"""
