"""Training models of this task."""
