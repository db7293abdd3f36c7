"""Data sets in archives: tar shards as webdataset has them, tar and zip files of class folders."""
