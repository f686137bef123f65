"""Where jobs are kept: in memory, or in the catalog."""
