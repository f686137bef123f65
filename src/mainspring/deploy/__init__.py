"""Other places where a project's work runs: engines that run its steps, and engines that a pipeline is exported to."""
