"""One small reader per label format; all of them give the same record (labels.py)."""
