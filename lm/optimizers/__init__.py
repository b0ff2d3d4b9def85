"""Optimizers, one per file and found by name, made of optax transformations."""

SHARED = ("config", "groups", "schedules")
