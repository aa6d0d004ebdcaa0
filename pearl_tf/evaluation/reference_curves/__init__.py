"""Learning curves measured by others, as package data; `README.md` says where each came from."""
