"""What training detectors and segmentors has in common: rates, schedules, layer-wise decay."""
