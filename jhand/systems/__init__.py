"""Published systems, one module each, to be read beside their papers."""
