"""Card payments, of which some turn out to be fraud weeks later."""
