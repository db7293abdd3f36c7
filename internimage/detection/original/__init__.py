"""What the original's detection checkpoints call their parameters and settings."""
