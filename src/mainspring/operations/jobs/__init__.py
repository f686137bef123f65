"""Background jobs: handlers, schedules, the worker's thread, and the API to queue and watch jobs."""
