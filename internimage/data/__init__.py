"""Files to (picture, target) samples; knows no model."""

from internimage.data.dataset import PictureDataset as PictureDataset
from internimage.data.dataset import Sample as Sample
from internimage.data.dataset import Selection as Selection
from internimage.data.dataset import Unreadable as Unreadable
from internimage.data.dataset import hold_out as hold_out
from internimage.data.dataset import read_as as read_as
from internimage.data.dataset import read_sample as read_sample
from internimage.data.fashion_mnist import FashionMNIST as FashionMNIST
from internimage.data.image_folder import ImageFolder as ImageFolder
from internimage.data.open import open_dataset as open_dataset
