"""Load tests of an endpoint, by a private gateway."""
