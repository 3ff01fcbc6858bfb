"""Trained runs to SavedModel and TFLite, and one way to call all of them."""
