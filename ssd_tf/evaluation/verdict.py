"""A verdict on an evaluation in plain words: one sentence, and one suggestion.

Objects and false alarms are counted at the threshold of each class.

Shapes: `N` objects of a split, `n` detections of a split, `C` categories.
"""

import collections
import typing

import numpy as np

from ssd_tf.evaluation.analysis import (
    IGNORED,
    RIGHT,
    WRONG,
    Analysis,
    find_shown,
    image_names,
    match_at_iou50,
    split_errors,
)

# Fewer errors show no pattern.
_MIN_ERRORS = 5
_GOOD_F1 = 0.95
# A kind of error that is at least this fraction of all errors dominates.
_DOMINANT = 0.5
# Contradicted labels: confident false alarms for each equally confident right detection.
_SUSPICIOUS = 0.2
# The side of a small object, pixels at the input: two cells of a first feature map of stride 8.
_SMALL = 16
_ENOUGH_PIXELS = 24
_INPUT_MULTIPLE = 32  # of the input's sides
# A recall that is lower than that of the other objects by at least this.
_LOWER_RECALL = 0.2
# A rare class has at most this fraction of the median class's objects.
_RARE = 0.5
# AP grows in jumps, so a shorter time without a better one says little, and so do few evaluations.
_LONG_WITHOUT_GAIN = 1 / 3  # of the training
_MIN_LATER = 3  # evaluations
_NAMES_SHOWN = 3
_PHRASES = {
    "classification": "the wrong class",
    "localisation": "a box too far from the object's (IoU below .5)",
    "both": "the wrong class and a wrong box",
    "duplicate": "objects found twice",
    "background": "detections where no object is",
    "missed": "objects missed",
}


class Counts(typing.NamedTuple):
    """What is found at the thresholds.

    scores: [C] the thresholds. objects, found, wrong: [C] objects, those found, and false alarms.
    shown: [n] bool, detections at or above their threshold. is_found: [N] bool. errors: {kind:
    count}, as TIDE divides them.
    """

    scores: np.ndarray
    objects: np.ndarray
    found: np.ndarray
    wrong: np.ndarray
    shown: np.ndarray
    is_found: np.ndarray
    errors: dict


class Suggestion(typing.NamedTuple):
    """cause: "labels", "small", "boxes", "rare", "confused", "untrained", "few", "good", or
    "unclear" if none of the others dominates. text: what to do, and the numbers that say so.
    """

    cause: str
    text: str


def judge(analysis: Analysis, input_hw=None, peak=None) -> dict:
    """The {"sentence", "suggestion"} of metrics.json; input_hw, peak: as `suggest` takes them."""
    counts = count(analysis)
    return {
        "sentence": describe(analysis, counts),
        "suggestion": suggest(analysis, counts, input_hw, peak).text,
    }


def count(analysis: Analysis) -> Counts:
    """Count what is found at the threshold of each class; 0.5 if there are no thresholds."""
    truth = analysis.truth
    found = analysis.found
    names = truth.names
    scores = np.full(len(names), analysis.score)
    if analysis.chosen:
        scores = np.array(analysis.chosen.of(names), float)
    shown, is_found = find_shown(found, analysis.matches, scores[found.category])
    status = analysis.matches.status
    counted = ~truth.ignored

    def by_class(categories):
        return np.bincount(categories, minlength=len(names))

    matched = match_at_iou50(truth.select(counted), found.select(shown & (status != IGNORED)))
    return Counts(
        scores,
        by_class(truth.category[counted]),
        by_class(truth.category[counted & is_found]),
        by_class(found.category[shown & (status == WRONG)]),
        shown,
        is_found,
        {kind: row["count"] for kind, row in split_errors(matched).items()},
    )


def describe(analysis: Analysis, counts: Counts) -> str:
    """One sentence: objects found, false alarms, the worst class, the most common error."""
    num_objects = counts.objects.sum()
    if not num_objects:
        return "These images have no objects that count, so there is nothing to find."
    categories = np.flatnonzero(counts.objects)
    names = analysis.truth.names
    what = _counted(num_objects, "object")
    if len(categories) == 1:
        what += f" of class {names[categories[0]]}"
    text = f"Finds {counts.found.sum():,} of {what} with {_false_alarms(counts.wrong.sum())}"
    text += f" at {_describe_scores(counts.scores[categories])}"
    errors = counts.errors
    if not any(errors.values()):
        return f"{text}; no errors."
    if len(categories) > 1:
        worst = min(categories, key=lambda category: _f1(counts, category))
        text += (
            f"; worst class: {names[worst]}, {counts.found[worst]:,} of {counts.objects[worst]:,}"
            f" with {_false_alarms(counts.wrong[worst])}"
        )
    kind = max(errors, key=lambda kind: errors[kind])
    return f"{text}; most common error: {_PHRASES[kind]} ({errors[kind]:,})."


def _describe_scores(scores):
    lowest = _score(scores.min())
    highest = _score(scores.max())
    return f"a score of {lowest}" if lowest == highest else f"scores of {lowest} to {highest}"


def _score(value):
    return f"{value:.2f}".lstrip("0")


def _counted(number, noun):
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _false_alarms(number):
    return _counted(number, "false alarm") if number else "no false alarms"


def _f1(counts, categories):
    """F1 of one category, or of several together."""
    objects, found, wrong = (np.sum(column[categories]) for column in counts[1:4])
    return 2 * found / max(objects + found + wrong, 1)


def suggest(analysis: Analysis, counts: Counts, input_hw=None, peak=None) -> Suggestion:
    """The first of these rules that holds; docs/evaluation.md lists them.

    input_hw: height and width of the network's input; None: unknown, sizes are those in the image.
    peak: as `run_files.find_peak` returns it; None: unknown.
    """
    num_errors = sum(counts.errors.values())
    suggestion = _suggest_labels(analysis, counts)
    if suggestion:
        return suggestion
    if not counts.objects.any():
        return Suggestion("few", "Evaluate on images with labelled objects: these have none.")
    if not counts.found.any():
        return Suggestion(
            "untrained",
            "Train longer: no detection is right yet. `ssd show-input` shows whether the training "
            "boxes lie on the objects.",
        )
    if _f1(counts, slice(None)) >= _GOOD_F1:
        return Suggestion("good", "Nothing stands out in these images: try it on new ones.")
    if num_errors < _MIN_ERRORS:
        return Suggestion(
            "few",
            f"Label more images, also for validation: {_counted(counts.objects.sum(), 'object')} "
            f"with {_counted(num_errors, 'error')} show no pattern.",
        )
    return (
        _suggest_input(analysis.truth, counts, input_hw)
        or _suggest_boxes(counts, num_errors)
        or _suggest_rare(analysis.truth.names, counts)
        or _suggest_confused(analysis, counts, num_errors)
        or _suggest_more(counts, num_errors, peak)
    )


def _suggest_more(counts, num_errors, peak):
    """The usual remedies."""
    text = f"no single cause dominates the {num_errors:,} errors"
    kind = max(counts.errors, key=lambda kind: counts.errors[kind])
    if counts.errors[kind] >= _DOMINANT * num_errors:
        text = f"{counts.errors[kind]:,} of {num_errors:,} errors are {_PHRASES[kind]}"
    if not is_long_past(peak):
        return Suggestion("unclear", f"Train longer, or label more images: {text}.")
    when = f"after {peak.best:,} of {peak.last:,} steps" if peak.best else "before the first step"
    return Suggestion(
        "unclear",
        f"Label more images: {text}. Longer training would hardly help, as AP was best {when}.",
    )


def is_long_past(peak) -> bool:
    """Whether so much of a training came after its best AP that more steps would hardly help.

    peak: as `suggest` takes it.
    """
    if peak is None or peak.num_later < _MIN_LATER:
        return False
    return peak.last - peak.best > _LONG_WITHOUT_GAIN * peak.last


def _suggest_labels(analysis, counts):
    """Detections as confident as the right ones, on no object or on one of another class."""
    found = analysis.found
    right = found.scores[counts.shown & (analysis.matches.status == RIGHT)]
    sure_score = max(np.median(right), 0.5) if len(right) else 0.5
    suspects = [
        row for row in analysis.matches.label_errors if found.scores[row["detection"]] >= sure_score
    ]
    if len(suspects) < max(_MIN_ERRORS, _SUSPICIOUS * np.sum(right >= sure_score)):
        return None
    num_missing = sum(row["object"] is None for row in suspects)
    names = image_names(analysis.truth)
    images = collections.Counter(names[found.image[row["detection"]]] for row in suspects)
    parts = [f"{_counted(num_missing, 'detection')} without a label"] if num_missing else []
    if num_missing < len(suspects):
        parts.append(f"{len(suspects) - num_missing:,} on an object labelled as another class")
    shown = ", ".join(name for name, _ in images.most_common(_NAMES_SHOWN))
    return Suggestion(
        "labels",
        f"Check the labels, first of {shown}: {' and '.join(parts)} score at least "
        f"{_score(sure_score)}, like half of the right ones. If these labels are right, add such "
        "images.",
    )


def _suggest_input(truth, counts, input_hw):
    """Missed objects that are small at the input, when larger ones are found more often."""
    counted = ~truth.ignored
    sides = _sides(truth, input_hw)
    is_small = counted & (sides < _SMALL)
    missed = sides[is_small & ~counts.is_found]
    num_missed = np.sum(counted & ~counts.is_found)
    if len(missed) < max(_MIN_ERRORS, _DOMINANT * num_missed):
        return None
    larger = counted & ~is_small
    recall_of_larger = np.mean(counts.is_found[larger]) if larger.any() else 1.0
    if recall_of_larger - np.mean(counts.is_found[is_small]) < _LOWER_RECALL:
        return None
    median = np.median(missed)
    where = "in the image"
    example = ""
    if input_hw:
        where = f"at the input of {input_hw[0]} x {input_hw[1]}"
        sides = [_round_up(side * _ENOUGH_PIXELS / median) for side in input_hw]
        example = f", such as model.input_hw=[{sides[0]}, {sides[1]}]"
    return Suggestion(
        "small",
        f"Use a larger input{example}, or images from nearer: {len(missed):,} of the "
        f"{num_missed:,} objects missed are smaller than {_SMALL} pixels {where}, "
        f"half of them at most {median:.0f}.",
    )


def _sides(truth, input_hw):
    """The square root of each object's area, in pixels of the input."""
    sides = truth.boxes[:, 2:].astype(float)  # width, height
    if input_hw:
        rows = [(row["width"], row["height"]) for row in truth.image_rows]
        sizes = np.array(rows, float).reshape(-1, 2)
        sides = sides * np.array(input_hw[::-1]) / sizes[truth.image]
    return np.sqrt(sides.prod(1))


def _round_up(side):
    return int(np.ceil(side / _INPUT_MULTIPLE)) * _INPUT_MULTIPLE


def _suggest_boxes(counts, num_errors):
    """Wrong locations and duplicates, which default boxes of the right sizes avoid."""
    number = sum(counts.errors[kind] for kind in ("localisation", "both", "duplicate"))
    if number < max(_MIN_ERRORS, _DOMINANT * num_errors):
        return None
    return Suggestion(
        "boxes",
        f"Fit the default boxes to the objects with `ssd fit-boxes`: {number:,} of {num_errors:,} "
        "errors are boxes too far from an object, or objects found twice.",
    )


def _suggest_rare(names, counts):
    """Classes with few objects, found less often than the others."""
    present = np.flatnonzero(counts.objects)
    if len(present) < 2:
        return None
    median = np.median(counts.objects[present])
    rare = []
    for category in present:
        others = present[present != category]
        if counts.objects[category] > _RARE * median:
            continue
        recall_of_others = counts.found[others].sum() / counts.objects[others].sum()
        if recall_of_others - _recall(counts, category) >= _LOWER_RECALL:
            rare.append(category)
    if not rare:
        return None
    rare = sorted(rare, key=lambda category: _recall(counts, category))[:_NAMES_SHOWN]
    found = ", ".join(
        f"{counts.found[category]:,} of {counts.objects[category]:,} {names[category]}"
        for category in rare
    )
    others = np.setdiff1d(present, rare)
    return Suggestion(
        "rare",
        f"Add images of class {', '.join(names[category] for category in rare)}: found are {found},"
        f" and {counts.found[others].sum():,} of {counts.objects[others].sum():,} others.",
    )


def _recall(counts, category):
    return counts.found[category] / counts.objects[category]


def _suggest_confused(analysis, counts, num_errors):
    """Objects that are found as another class."""
    number = counts.errors["classification"]
    if number < max(_MIN_ERRORS, _DOMINANT * num_errors):
        return None
    names = analysis.truth.names
    matrix = analysis.confusion[:-1, :-1].copy()
    np.fill_diagonal(matrix, 0)
    first, second = np.unravel_index(np.argmax(matrix), matrix.shape)
    pair = f": most often {names[first]} as {names[second]}" if matrix.any() else ""
    return Suggestion(
        "confused",
        f"Add images of the classes that are confused, and check that their labels follow one rule"
        f"{pair}; {number:,} of {num_errors:,} errors are the wrong class.",
    )
