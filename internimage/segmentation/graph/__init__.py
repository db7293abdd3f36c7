"""A segmentor as the graph that leaves PyTorch."""

from internimage.segmentation.graph.segmentor import SegmentorGraph as SegmentorGraph
