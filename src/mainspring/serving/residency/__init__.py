"""Models of a gateway process within a bound on its memory: the least recently used leave, and come back when asked."""
