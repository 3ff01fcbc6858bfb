"""pipeline.config of the TF Object Detection API: a protobuf in text format, without its schema."""

import math
import re
import typing

from ssd_tf import user_files
from ssd_tf.errors import ConfigError
from ssd_tf.weights.importers.od_api import round_number

# After white space and comments: a name, a sign, a number, or a text.
_TOKEN = re.compile(
    r"\s*(?:#[^\n]*\s*)*"
    r"([A-Za-z_][\w.]*|[{}:<>;,\[\]]|[-+.\d][\w.+-]*|\"[^\"\n]*\"|'[^'\n]*')"
)
_MAX_DEPTH = 50


class Message(typing.NamedTuple):
    """fields: a list of values, texts or messages, for each key. path: of the file, for errors."""

    fields: dict[str, list]
    path: typing.Any = ""

    def message(self, key) -> "Message":
        """The last message of that key, or an empty one."""
        found = [each for each in self.fields.get(key, []) if isinstance(each, Message)]
        return found[-1] if found else Message({}, self.path)

    def text(self, key, default) -> str:
        found = [each for each in self.fields.get(key, []) if isinstance(each, str)]
        return found[-1].strip("\"'") if found else default

    def number(self, key, default) -> float:
        """Rounded to the decimal number that a float32 was written as. Raises ConfigError."""
        return self._read_number(key, self.text(key, default))

    def numbers(self, key) -> list[float]:
        return [self._read_number(key, each) for each in self.fields.get(key, [])]

    def integer(self, key, default, maximum, minimum=1) -> int:
        """A whole number from the minimum to the maximum. Raises ConfigError."""
        number = self.number(key, default)
        if not minimum <= number <= maximum or number != int(number):
            raise ConfigError(
                f"{self.path}: {key}: expected a whole number from {minimum} to {maximum}, got "
                f"{number:g}"
            )
        return int(number)

    def _read_number(self, key, value):
        try:
            number = round_number(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"{self.path}: {key}: expected a number, got {value}")
        return number

    def flag(self, key) -> bool:
        return self.text(key, "false") in ("true", "True", "t", "1")


def read_pipeline(path) -> Message:
    """Raises ConfigError if the file is missing or not in protobuf's text format."""
    if not path.is_file():
        raise ConfigError(f"no pipeline.config at {path}{user_files.suggest_path(path)}")
    text = user_files.read_text(path)
    tokens = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            if not re.sub(r"#[^\n]*", "", text[position:]).strip():
                break
            line = text.count("\n", 0, position) + 1
            raise ConfigError(f"{path}: line {line}: expected keys and values of a pipeline.config")
        tokens.append(match[1])
        position = match.end()
    message, end = _parse(tokens, 0, path, 0)
    if end != len(tokens):
        raise ConfigError(f"{path}: unexpected {tokens[end]!r}")
    return message


def _parse(tokens, index, path, depth):
    """A message from tokens[index] on, and the index of what follows it."""
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{path}: nested too deeply")
    fields = {}
    while index < len(tokens) and tokens[index] not in ("}", ">"):
        key = tokens[index]
        index += 1
        if tokens[index : index + 1] == [":"]:
            index += 1
        token = tokens[index] if index < len(tokens) else ""
        if token in ("{", "<"):
            value, index = _parse(tokens, index + 1, path, depth + 1)
            if index >= len(tokens):
                raise ConfigError(f"{path}: {key} is not closed")
            values = [value]
        elif token == "[":
            end = tokens.index("]", index) if "]" in tokens[index:] else len(tokens)
            values = [each for each in tokens[index + 1 : end] if each != ","]
            index = end
        elif token in ("", "}", ">", ":"):
            raise ConfigError(f"{path}: {key} has no value")
        else:
            values = [token]
        fields.setdefault(key, []).extend(values)
        index += 1
        while tokens[index : index + 1] in ([";"], [","]):
            index += 1
    return Message(fields, path), index
