"""Command line: one thin command per verb, no logic."""
