"""A task of the tests: how an image was turned. One folder, as a new task of the package would be."""
