"""The overview, and the page of one endpoint."""
