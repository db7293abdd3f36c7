"""Several processes that train together: how they are started, what each of them does, and what the model then sees."""
