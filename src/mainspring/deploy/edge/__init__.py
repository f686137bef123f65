"""Edge packages: a model, its features and golden rows in one signed folder, for devices without servers.

The code on a device is a separate distribution, `edge-runtime`, that imports nothing of this one.
"""
