"""Tools for Cloud TPU slices that need no TPU: compile, plan, rehearse."""
