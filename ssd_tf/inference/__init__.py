"""One way to call a run folder, a SavedModel or a TFLite file."""
