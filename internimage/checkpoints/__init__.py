"""Weights in files: the catalog, downloads, containers, names of parameters, reading and writing."""
