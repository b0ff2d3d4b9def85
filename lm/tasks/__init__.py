"""Yardsticks: each file is one, found by its name, and measures any checkpoint that it suits."""
