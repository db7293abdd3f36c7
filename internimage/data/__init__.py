"""Files to (image, target) samples; knows no model."""

from internimage.data.dataset import ImageDataset as ImageDataset
from internimage.data.dataset import Sample as Sample
from internimage.data.dataset import Selection as Selection
from internimage.data.dataset import Unreadable as Unreadable
from internimage.data.dataset import hold_out as hold_out
from internimage.data.dataset import read_as as read_as
from internimage.data.dataset import read_next as read_next
from internimage.data.dataset import read_sample as read_sample
from internimage.data.label_maps.open import open_segmentation_dataset as open_segmentation_dataset
from internimage.data.readers.fashion_mnist import FashionMNIST as FashionMNIST
from internimage.data.readers.folders import ImageFolder as ImageFolder
from internimage.data.readers.open_labels import open_dataset as open_dataset
from internimage.data.readers.open_objects import open_detection_dataset as open_detection_dataset
