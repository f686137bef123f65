"""Use cases on streams: land, list, show, seek."""
