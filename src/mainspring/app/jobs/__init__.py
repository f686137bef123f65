"""What runs in the background: the handlers, when they are due, the worker's thread, and what people ask of jobs."""
