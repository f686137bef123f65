"""`mainspring batch`: a version's predictions for many rows, by chunks, each exactly once."""
