"""The processes of a running system: the supervisor, its children, and how each begins and ends."""
