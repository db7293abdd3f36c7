"""What the Triton kernels share: device functions for bilinear samples, and what launching them needs."""
