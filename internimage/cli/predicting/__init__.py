"""What `internimage predict` is made of: sources, predictions as rows, drawings."""
