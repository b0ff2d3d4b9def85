"""Evaluation tasks. Each module is a plug-in for every checkpoint whose objective it supports."""
