"""Containers: a bundle from a root file system, run by an OCI runtime."""
