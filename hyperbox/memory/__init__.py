"""Memory pressure: monitoring and (later) swap tuning."""
