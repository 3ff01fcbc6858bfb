"""One small reader per label format; each gives the same plain record (labels.py)."""
