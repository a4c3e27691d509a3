"""Pure statistics and gate decisions."""
