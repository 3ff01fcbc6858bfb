"""Weights of our own runs, and importers of third-party ones."""
