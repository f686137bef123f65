"""Mainspring's documentation, searched and quoted."""
