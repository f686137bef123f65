"""The page of one prediction and its provenance."""
