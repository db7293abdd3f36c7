"""Training models of this task: their recipes, their batches, and what a run does with them."""
