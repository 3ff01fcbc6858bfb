"""The fonts of this machine, found by the characters that they have."""

import functools
import os
import pathlib

import matplotlib
from absl import logging
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

from ssd_tf.errors import ConfigError

FONT_VARIABLE = "SSD_TF_FONT"  # of the environment: a font file for names that are not ASCII


@functools.cache
def find_font(characters):
    """The file of the font with the most of these characters.

    The first that has all: the one that the user named, matplotlib's own, those of the system.
    Raises ConfigError if the environment names a font that cannot be used.
    """
    preferred = [str(pathlib.Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))]
    named = os.environ.get(FONT_VARIABLE)
    if named:
        if not characters_of(named):
            raise ConfigError(f"{FONT_VARIABLE}: expected a font file (.ttf, .otf), got {named}")
        preferred.insert(0, named)
    for path in preferred:
        if characters <= characters_of(path):
            return path
    paths = [*preferred, *sorted(font_manager.findSystemFonts())]
    best = max(paths, key=lambda path: len(characters & characters_of(path)))
    if not characters <= characters_of(best):
        warn_of_missing_characters()
    return best


@functools.cache
def characters_of(path):
    """The characters that a font can draw."""
    if "LastResort" in path:  # which has a box for every character
        return frozenset()
    try:
        ImageFont.truetype(path, 10)  # fails for fonts that are bitmaps of one size
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except Exception:  # a file that is no font after all
        return frozenset()


@functools.cache
def warn_of_missing_characters():
    """Warn, once."""
    logging.warning(
        "no font on this machine has all characters of the class names: boxes are drawn for those "
        "that are missing; install a font that has them, e.g. Noto Sans CJK, or name its file in "
        "%s",
        FONT_VARIABLE,
    )
