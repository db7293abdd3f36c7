"""Weights in and out: the public names of the readers and writers."""

from internimage.zoo.saving import save_model as save_model
