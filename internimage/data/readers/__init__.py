"""The layouts of files and folders that data sets come in."""
