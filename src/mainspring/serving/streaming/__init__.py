"""Predictions on streams: messages in, predictions and decisions out, with state by key, exactly once."""
