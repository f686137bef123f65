"""Messages about incidents: declared receivers, their words, and the port that sends them."""
