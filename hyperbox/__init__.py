"""hyperbox proves container optimisations on a matrix of Linux kernels."""

__version__ = "0.1.0"
