"""Image files to arrays: formats, channels, value ranges, sizes, videos."""
