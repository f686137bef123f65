"""One run: what it records, what it was made from, and how two runs differ."""
