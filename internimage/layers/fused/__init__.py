"""The inference forms of layers: the same functions with fewer passes over memory."""
