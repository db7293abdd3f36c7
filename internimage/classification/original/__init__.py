"""What the original's classification checkpoints call their parameters and settings."""
