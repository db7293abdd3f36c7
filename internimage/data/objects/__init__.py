"""Images with objects: boxes, masks and classes, whatever files they come from."""
