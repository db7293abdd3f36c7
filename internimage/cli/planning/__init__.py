"""`internimage plan`: what a run will need."""

from internimage.cli.planning.command import plan as plan
