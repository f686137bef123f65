"""The demo: the whole path once, on the flights of 2013."""
