"""The R-CNN family: proposals, then heads for each region."""
