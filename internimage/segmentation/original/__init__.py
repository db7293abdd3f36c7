"""What the original's segmentation checkpoints call their parameters and settings."""
