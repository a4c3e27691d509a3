"""Plan, engine and store of runs."""
