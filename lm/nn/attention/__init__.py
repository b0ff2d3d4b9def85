"""Kinds of attention: each file is one, found by its name, but for the masks, which all of them share."""

SHARED = ("context_parallel", "mask")
