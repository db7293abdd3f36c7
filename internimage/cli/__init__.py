"""The command line: argv in, exit code out; each command is a short call of the public API.

Nothing here imports torch at the top of a file, so that `--help` and shell completion answer at once.
"""

from internimage.cli.app import app as app
from internimage.cli.app import main as main
