"""Models to files that other runtimes run: each format is a file here, all of them verified after writing.

The folder is not called `export`, because `internimage.export` is the function.
"""
