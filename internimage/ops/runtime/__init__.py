"""What the kernels run on: the compiled library, the memory it works in, and what the Triton kernels share."""
