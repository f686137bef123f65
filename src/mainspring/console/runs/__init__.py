"""The pages of runs: the table, one run, and the comparison of several."""
