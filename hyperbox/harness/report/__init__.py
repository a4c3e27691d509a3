"""Tables, plots, pages and exporters derived from a run directory."""
