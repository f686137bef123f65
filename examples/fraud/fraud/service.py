"""Where payments are asked about."""

import mainspring as ms

ms.Endpoint("fraud", model="fraud@champion", deadline="100ms")
