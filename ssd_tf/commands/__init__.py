"""The commands: flags in, one library call, exit code out."""
