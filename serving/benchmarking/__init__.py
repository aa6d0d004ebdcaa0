"""Measures the server: load, floors, life. The program is `serving.benchmark`."""
