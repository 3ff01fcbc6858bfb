"""The fonts of this machine, found by the characters that they have."""

import functools
import pathlib

import matplotlib
from absl import logging
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import ImageFont


@functools.cache
def find_font(characters):
    """The file of the font with the most of these characters: matplotlib's own if it has all."""
    own = str(pathlib.Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"))
    if characters <= characters_of(own):
        return own
    paths = [own, *sorted(font_manager.findSystemFonts())]
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
        "that are missing; install a font that has them, e.g. Noto Sans CJK"
    )
