"""Exact small-sample inference at planned looks: numbers in, numbers out."""
