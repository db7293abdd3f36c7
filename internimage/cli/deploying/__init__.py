"""Models for others to use: `internimage export`, `internimage serve`."""

from internimage.cli.deploying.export import export as export
from internimage.cli.deploying.serve import serve as serve
