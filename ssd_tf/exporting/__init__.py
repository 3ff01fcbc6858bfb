"""Export trained runs to SavedModel and TFLite, and compare the exports with the run."""
