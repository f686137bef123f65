"""Use cases on features: read, write, verify, explain, materialise, clean up."""
