"""`mainspring replay`: logged predictions answered again, and their features read again as of their instants."""
