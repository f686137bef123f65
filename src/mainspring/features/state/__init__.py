"""What is kept of an entity's rows so that any window over them can be answered: mergeable, in SQL and in Python."""
