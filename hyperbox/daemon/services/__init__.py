"""One module per service: a feature as the daemon serves it."""
