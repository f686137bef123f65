"""The processes of a running system: the supervisor, its children, and their life cycles."""
