"""Kernels, guest image, QEMU, and machines to measure on."""
