"""The package version, read by setup.py and written into every run folder."""

__version__ = '0.1.0'
