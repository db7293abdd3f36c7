"""Models for others to use: `internimage serve`."""

from internimage.cli.deploying.serve import serve as serve
