"""Kinds of attention: each module is a plug-in, except modules in SHARED, which all kinds use."""

SHARED = ("context_parallel", "mask")
