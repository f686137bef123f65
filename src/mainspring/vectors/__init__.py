"""Vectors: embeddings of texts and rows, their indexes, and the search in them."""
