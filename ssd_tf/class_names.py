"""Names and numbers of classes: which names are valid, and how a number is written.

Names travel as lines of text files into exports and on to their clients, so a name is one printable
line without blanks at its ends, in Unicode NFC; `background` and `???` are names like others.
"""

import unicodedata

# Format characters without which Persian, Indic scripts and emoji are misspelt.
_JOINERS = "\u200c\u200d"


def count_classes(number) -> str:
    """A number of classes in words: 1 class, 2 classes."""
    return f"{number} class{'es' if number != 1 else ''}"


def normalize(name) -> str:
    """A name as it is stored: in NFC, each kind of space as a plain one, and none at the ends.

    Other characters that a name cannot have stay, for `find_fault` to report.
    """
    name = unicodedata.normalize("NFC", name)
    return "".join(" " if unicodedata.category(c) == "Zs" else c for c in name).strip()


def find_fault(name) -> str:
    """Why this cannot be the name of a class; empty if it can."""
    if not isinstance(name, str):
        return f"expected text, got {name!r}"
    if not name:
        return "is empty"
    unprintable = next((c for c in name if not c.isprintable() and c not in _JOINERS), None)
    if unprintable is not None:
        return f"has the character U+{ord(unprintable):04X}, which is not printable"
    if name != normalize(name):
        return "has blanks at its ends, or is not in Unicode NFC"
    return ""


def check_names(names, where):
    """Raise ValueError for the first name that is invalid or repeated.

    where: their origin, for the message, such as the path of a file.
    """
    seen = set()
    for name in names:
        fault = "is there more than once" if name in seen else find_fault(name)
        if fault:
            raise ValueError(
                f"{where}: the class name {name!r} {fault}; a class name is one printable line, "
                "and no two are equal"
            )
        seen.add(name)
