"""Data by name: landing it, its versions, what it holds, what is made of it."""
