"""Closet: a small data set for all tasks, composed from Fashion-MNIST and the photographs of scikit-image."""

from .files import write_closet as write_closet
from .files import write_crops as write_crops
from .scenes import Closet as Closet
from .scenes import Scene as Scene
from .scenes import label_map as label_map
