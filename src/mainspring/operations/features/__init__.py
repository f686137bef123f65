"""Features by name: read, written, verified, explained, materialised, tidied up."""
