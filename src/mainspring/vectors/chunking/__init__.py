"""Chunkers: cut a document into chunks that an encoder takes whole."""
