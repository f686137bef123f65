"""The pages of runs: the table, one run, several beside each other."""
