"""Load: made, measured, and read back from the gateway's own numbers."""
