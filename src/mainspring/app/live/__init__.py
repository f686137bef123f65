"""A running system seen from outside: requests, load tests, checks, and the demo."""
