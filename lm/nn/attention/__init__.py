"""Kinds of attention: each file is a plug-in, except those in SHARED, which all kinds use."""

SHARED = ("context_parallel", "mask")
