"""The harness: machines, runs, verdicts and reports."""
