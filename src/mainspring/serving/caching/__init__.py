"""Earlier answers, kept for requests that are equal."""
