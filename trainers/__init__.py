"""The programs, each started as `python -m trainers.<name>`."""
