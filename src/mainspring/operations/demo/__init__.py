"""The demo: the whole life cycle, on the flights of 2013."""
