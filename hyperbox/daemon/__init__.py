"""The daemon: features as rooms of one house, served over HTTP."""
