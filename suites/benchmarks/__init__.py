"""Benchmarks of the harness itself, for asv; see CONTRIBUTING.md."""
