"""Job stores: in memory, or in the catalog."""
