"""Labels of other formats to TFRecords, and tools to look at them. Each file with a `main` is a command."""
