"""Weights from elsewhere -> our model: one file per source format."""
