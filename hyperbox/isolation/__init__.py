"""Isolation: seccomp profiles that are learned from containers and proven against the default."""
