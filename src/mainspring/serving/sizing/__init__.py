"""Size of the machines that an endpoint needs: a model's work, a machine's speed, and the load that both can serve."""
