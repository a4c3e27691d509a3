"""Memory pressure: monitoring and swap tuning."""
