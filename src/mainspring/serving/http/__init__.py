"""The protocol over HTTP: the gateway, its routes, and its process."""
