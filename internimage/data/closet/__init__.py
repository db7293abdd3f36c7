"""Closet: a small data set for all tasks, composed from Fashion-MNIST and the photographs of scikit-image."""

from internimage.data.closet.files import write_closet as write_closet
from internimage.data.closet.files import write_crops as write_crops
from internimage.data.closet.scenes import Closet as Closet
from internimage.data.closet.scenes import Scene as Scene
from internimage.data.closet.scenes import label_map as label_map
