"""One module per room: a feature as the daemon serves it."""
