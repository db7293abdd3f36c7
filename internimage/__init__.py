"""InternImage for PyTorch: build, load, run, train and convert deformable-convolution vision models."""
