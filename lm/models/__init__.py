"""Architectures: each file is a plug-in."""
