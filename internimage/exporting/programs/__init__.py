"""Files of torch itself, `.pt2`: traced programs, and programs compiled to machine code."""
