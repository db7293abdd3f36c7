"""A model as a graph of tensors with its description (`build_graph`), and as a traced program (`trace`)."""

from internimage.exporting.graphs.build import build_graph as build_graph
from internimage.exporting.graphs.trace import Operators as Operators
from internimage.exporting.graphs.trace import trace as trace
