"""Other places where a project's work runs: the engines that a pipeline is exported to."""
