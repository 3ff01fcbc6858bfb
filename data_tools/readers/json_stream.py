"""Read the long arrays of a JSON object element by element, so that large files fit in memory."""

import json

from ssd_tf import user_files

CHUNK = 1 << 20  # characters
MAX_ELEMENT = 1 << 24  # characters
_SPACE = " \t\r\n"
_raw_decode = json.JSONDecoder().raw_decode


def read_members(path, keys):
    """Yield (key, element) for each element of the arrays under `keys`, in file order.

    (key, None) marks the beginning of an array. Raises ValueError if the file is not a JSON object,
    is cut short, or the value under one of the keys is not an array.
    """
    with user_files.open_text(path) as file:
        try:
            yield from _Scanner(file).members(keys)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON, or is cut short: {error.msg}") from None
        except UnicodeError:
            raise ValueError(f"{path} is not JSON in UTF-8: save it as UTF-8") from None
        except RecursionError:
            raise ValueError(f"{path} is nested too deeply for an annotation file") from None
        except _WrongShapeError as error:
            raise ValueError(f"{path} {error}") from None
        except ValueError as error:  # a number of thousands of digits
            raise ValueError(f"{path} cannot be read: {error}") from None


class _WrongShapeError(Exception):
    pass


class _Scanner:
    """A window on the text; everything before `position` has been consumed."""

    def __init__(self, file):
        self.file = file
        self.text = ""
        self.position = 0
        self.ended = False

    def members(self, keys):
        if self.peek() != "{":
            raise _WrongShapeError(
                f"does not hold a JSON object with {', '.join(keys)}: "
                f"it begins with {self.text[:20]!r}"
            )
        for _ in self._separated("}"):
            key = self.value()
            self.expect(":")
            if key not in keys:
                self.value()
                continue
            if self.peek() != "[":
                raise _WrongShapeError(f"holds no list under {key!r}")
            yield key, None
            for _ in self._separated("]"):
                yield key, self.value()
        if self.peek():
            raise json.JSONDecodeError("more text after the end", "", 0)

    def _separated(self, closing):
        """Step over the opening bracket, then stop at each element until the closing one."""
        self.position += 1
        if self.peek() == closing:
            self.position += 1
            return
        while True:
            yield
            if self.peek() == closing:
                self.position += 1
                return
            self.expect(",")

    def value(self):
        self.peek()
        while True:
            try:
                value, end = _raw_decode(self.text, self.position)
            except json.JSONDecodeError:
                if not self.refill():
                    raise
                continue
            # A number that touches the window's end may continue beyond it.
            if end < len(self.text) or not self.refill():
                self.position = end
                return value

    def expect(self, character):
        if self.peek() != character:
            found = self.text[self.position : self.position + 20]
            raise json.JSONDecodeError(f"expected {character!r}, got {found!r}", "", 0)
        self.position += 1

    def peek(self):
        """The next character that is not a space; empty at the end."""
        while True:
            while self.position < len(self.text):
                if self.text[self.position] not in _SPACE:
                    return self.text[self.position]
                self.position += 1
            if not self.refill():
                return ""

    def refill(self):
        """Drop the consumed text and read on, the more the longer the current element is.

        Returns False at the end of the file.
        """
        rest = self.text[self.position :]
        if len(rest) > MAX_ELEMENT:
            raise _WrongShapeError(f"has an element of over {MAX_ELEMENT:,} characters")
        chunk = "" if self.ended else self.file.read(max(CHUNK, len(rest)))
        self.ended = not chunk
        if chunk:
            self.text = rest + chunk
            self.position = 0
        return bool(chunk)
