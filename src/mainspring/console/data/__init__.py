"""The pages of tables and dataset commits."""
