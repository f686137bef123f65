"""Jobs in the console: the table with the schedules, and one job."""
