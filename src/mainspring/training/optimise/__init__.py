"""Smaller and faster variants of a model: quantised, in half precision, cut, pruned, distilled."""
