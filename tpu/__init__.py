"""Slices: rehearsed as processes on this machine, compiled for and planned without having one."""
