"""Training images of classifiers in batches: how they are varied, and which ones make a batch."""
