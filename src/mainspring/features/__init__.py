"""Feature views and their two reads: as of each observation's time from the lake, as of now from an online store."""
