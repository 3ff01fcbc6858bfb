"""The formats that can be exported, and their file names."""

PRECISIONS = ("float32", "float16", "dynamic", "int8")
FORMATS = (
    "saved_model",
    *(f"tflite_{precision}" for precision in PRECISIONS),
    *(f"tflite_{precision}_raw" for precision in PRECISIONS),
    "web",
)


def file_name(name):
    """The file, or the folder, of a format."""
    if name in ("saved_model", "web"):
        return name
    return f"model_{name.removeprefix('tflite_')}.tflite"


def is_calibrated(name):
    """Whether the format needs images to be calibrated on."""
    return name.startswith("tflite_int8")


def has_operator(name):
    """Whether the format's post-processing is the TFLite operator."""
    return name != "saved_model" and not name.endswith("_raw")
