"""Thin, typed wrappers of kernel interfaces, one module each; no policy."""
