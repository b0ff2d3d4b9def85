"""Architectures. Each module is one architecture, found by the module's name.

Each module has a class `Model` that implements lm.core.protocols.Model. To add an architecture, see
"Add a model" in CONTRIBUTING.md.
"""
