"""Answers from documents: retrieve chunks, let a language model answer from them, and keep what it cites."""
