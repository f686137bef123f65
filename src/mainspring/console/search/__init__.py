"""The page of a search of parameters: what was tried, what was best, what it hung on."""
