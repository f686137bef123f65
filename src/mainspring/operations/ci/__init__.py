"""The model pipeline: a commit's way to production in seven stages, with a report."""
