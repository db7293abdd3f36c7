"""DINO: queries that a transformer turns into objects."""
