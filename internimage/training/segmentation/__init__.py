"""Training segmentors."""
