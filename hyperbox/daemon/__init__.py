"""The daemon: features as services of one group, served over HTTP."""
