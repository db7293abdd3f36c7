"""Mask2Former: queries that predict one mask each."""
