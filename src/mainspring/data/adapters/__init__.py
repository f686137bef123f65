"""Where tables, commits and tags are kept: in memory, in a folder of Delta tables, in the catalog."""
