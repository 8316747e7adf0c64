"""Every figure, drawn once: inline in the page, and as PNG and SVG files."""
