"""From a name to a model: create, load, convert, inspect."""
