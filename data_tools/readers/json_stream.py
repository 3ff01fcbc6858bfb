"""Reads the long arrays of a JSON object element by element, so that a file of any size takes little memory."""

import json

_CHUNK = 1 << 20  # characters
_raw_decode = json.JSONDecoder().raw_decode
_SPACE = " \t\r\n"


def read_members(path, wanted):
    """Yields (key, element) for each element of the arrays that `wanted` names, in file order; (key, None) where one begins.

    Raises ValueError where the file is no JSON object, is cut short, or a wanted value is no array.
    """
    with open(path, encoding="utf-8-sig") as file:
        try:
            yield from _Scanner(file).members(wanted)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON, or is cut short: {error.msg}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not JSON: it is not UTF-8 text") from None
        except RecursionError:
            raise ValueError(f"{path} is nested too deeply for an annotation file") from None
        except _WrongShape as error:
            raise ValueError(f"{path} {error}") from None


class _WrongShape(Exception):
    pass


class _Scanner:
    """A window on the text: characters before `at` are done with."""

    def __init__(self, file):
        self.file, self.text, self.at, self.ended = file, "", 0, False

    def members(self, wanted):
        if self.peek() != "{":
            raise _WrongShape(
                f"does not hold a JSON object with {', '.join(wanted)}: it begins with {self.text[:20]!r}"
            )
        for _ in self._separated("}"):
            key = self.value()
            self.expect(":")
            if key not in wanted:
                self.value()
                continue
            if self.peek() != "[":
                raise _WrongShape(f"holds no list under {key!r}")
            yield key, None
            for _ in self._separated("]"):
                yield key, self.value()
        if self.peek():
            raise json.JSONDecodeError("more text after the end", "", 0)

    def _separated(self, closing):
        """Steps over the opening bracket, then stops at each element until the closing one."""
        self.at += 1
        if self.peek() == closing:
            self.at += 1
            return
        while True:
            yield
            if self.peek() == closing:
                self.at += 1
                return
            self.expect(",")

    def value(self):
        self.peek()
        while True:
            try:
                value, end = _raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if not self.refill():
                    raise
                continue
            # A number that touches the window's end may go on beyond it.
            if end < len(self.text) or not self.refill():
                self.at = end
                return value

    def expect(self, character):
        if self.peek() != character:
            raise json.JSONDecodeError(
                f"wanted {character!r}, found {self.text[self.at : self.at + 20]!r}", "", 0
            )
        self.at += 1

    def peek(self):
        """The next character that is no space; empty at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _SPACE:
                    return self.text[self.at]
                self.at += 1
            if not self.refill():
                return ""

    def refill(self):
        """Drops what is done with and reads on, by more the longer the element in hand is. False at the end of the file."""
        rest = self.text[self.at :]
        chunk = "" if self.ended else self.file.read(max(_CHUNK, len(rest)))
        self.ended = not chunk
        if chunk:
            self.text, self.at = rest + chunk, 0
        return bool(chunk)
