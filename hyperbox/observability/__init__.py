"""System-call tracing with eBPF, as OpenTelemetry sees it."""
