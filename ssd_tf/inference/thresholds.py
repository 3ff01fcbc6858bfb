"""Score thresholds of a model, chosen on validation images: a file beside runs and exports."""

import json
import pathlib
import typing

from ssd_tf.errors import shorten
from ssd_tf.user_files import read_text

THRESHOLDS_FILE = "thresholds.json"
# Without thresholds.
DEFAULT_SCORE = 0.5


class Thresholds(typing.NamedTuple):
    """The lowest score at which a detection is shown, chosen by `ssd evaluate`.

    all: chosen over all classes together; for classes that `classes` lacks, and for clients that
    take one number. classes: {name: score}. rule: "best F1", or e.g. "precision 0.9". split, data:
    the images on which they were chosen.
    """

    all: float
    classes: dict[str, float]
    rule: str = ""
    split: str | None = None
    data: str = ""

    def of(self, names) -> list[float]:
        """The threshold of each of these class names."""
        return [self.classes.get(name, self.all) for name in names]

    def complete(self, names) -> "Thresholds":
        """The same, with a number for each of these classes and no others."""
        return self._replace(classes=dict(zip(names, self.of(names), strict=True)))

    def to_json(self) -> dict:
        """The content of thresholds.json."""
        return self._asdict()


def read_thresholds(path) -> Thresholds | None:
    """Read a thresholds.json; None if there is no such file.

    `all` is needed, everything else may be missing. Raises ValueError for other content.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path))
        known = {name: content[name] for name in Thresholds._fields if name in content}
        thresholds = Thresholds(**{"classes": {}, **known})
        for score in [thresholds.all, *thresholds.classes.values()]:
            if not 0 <= score <= 1:
                raise ValueError(f"expected scores from 0 to 1, got {score}")
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a {THRESHOLDS_FILE} of `ssd evaluate` ({shorten(error)}); correct it, "
            "or delete it and evaluate again"
        ) from None
    return thresholds
