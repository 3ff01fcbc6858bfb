"""Errors of a step's command in the terms of `ssd quickstart`, which lacks most of its flags."""

import re

_OWN_FLAGS = frozenset(["--output", "--minutes", "--start", "--classes", "--format", "--set"])
_IMPORT = "import"
# {beginning of an error of `ssd import`: what it is about for the user}.
_SUBJECTS = {
    "--source: ": "--start: ",
    "--labels: ": "--start: the class names beside it, which you can correct or move away: ",
}


def in_own_terms(text, command) -> str:
    """An error of a command as the user of a quickstart needs it.

    command: its name, such as `import` or `convert voc`. Flags of that command alone are said to be
    so, with the way to use them.
    """
    if command == _IMPORT:
        for beginning, subject in _SUBJECTS.items():
            if text.startswith(beginning):
                text = subject + text.removeprefix(beginning)
    named = dict.fromkeys(re.findall(r"(?<![\w-])--[a-z_]+", text))
    others = [flag for flag in named if flag not in _OWN_FLAGS]
    if not others:
        return text
    then = "go on by hand (docs/step_by_step.md)"
    if command == _IMPORT:
        then = "give the folder that it writes as --start"
    return (
        f"{text} ({', '.join(others)}: of `ssd {command}`; run the command above with that "
        f"yourself, then {then})"
    )
