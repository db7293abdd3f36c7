"""Speed and memory, measured after a correctness check, as ratios within one run."""
