"""Errors of the project's own kinds."""


class ConfigError(ValueError):
    """An experiment file, key or value that cannot be used; the message gives its path."""
