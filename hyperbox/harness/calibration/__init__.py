"""How often verdicts err: simulated, and seen in runs with known answers. Pure."""
