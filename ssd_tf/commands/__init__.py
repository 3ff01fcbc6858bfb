"""The commands: they read flags, call the library and return an exit code."""
