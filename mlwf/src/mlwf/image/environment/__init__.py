"""The model's environment: locked, its Python found, installed and compiled."""
