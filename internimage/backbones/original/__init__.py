"""What the original calls the parameters and settings of its backbones, and how they show in a checkpoint."""
