"""What is held about a subject, such as a person: its erasure, and holds that forbid it."""
