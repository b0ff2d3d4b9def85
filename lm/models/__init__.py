"""Architectures. Each module is one, found by its name.

Each has a class `Model` as in lm.core.protocols.Model. CONTRIBUTING.md, "Add a model", has the
steps.
"""
