"""The zoo: every published checkpoint, where it comes from, how it is read and how it becomes a model."""
