"""Optimisers: each file is one, found by its name; all are made of optax."""

SHARED = ("config", "groups", "schedules")
