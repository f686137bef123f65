"""Feature views and the two reads of them: as of each observation's time from the lake, as of now from an online store."""
