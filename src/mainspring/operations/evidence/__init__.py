"""Evidence of what protects an installation, measured in it, by the controls of a framework."""
