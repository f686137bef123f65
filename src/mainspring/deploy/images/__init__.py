"""Images of containers: layers that are the same bytes wherever and whenever they are built, as an OCI layout."""
