"""Container images: registries, layouts, the store, and how they become file systems."""
