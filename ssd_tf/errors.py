"""Errors of the project's own, and the texts of errors of others."""


class ConfigError(ValueError):
    """An experiment file, key or value that cannot be used; the message gives its path."""


class InputTooSmallError(ValueError):
    """A map of a network vanishes before the last one: a larger input or fewer maps help."""


def shorten(error) -> str:
    """The beginning of an error's message, on one line."""
    return " ".join(str(error).split())[:120]
