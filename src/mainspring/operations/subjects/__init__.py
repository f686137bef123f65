"""Data about a subject, such as a person: its erasure, its export, and holds that forbid erasing."""
