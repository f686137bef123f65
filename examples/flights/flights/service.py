"""Endpoints."""

import mainspring as ms

ms.Endpoint("late-arrival", model="late-arrival@champion", deadline="250ms")
