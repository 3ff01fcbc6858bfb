"""Arrays of a .safetensors file."""

import ml_dtypes  # noqa: F401 - teaches NumPy bfloat16
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from ssd_tf.errors import ConfigError
from ssd_tf.weights.checks import check_finite, shorten


def read_arrays(path) -> dict[str, np.ndarray]:
    """The arrays by name; half precision becomes float32.

    Raises ConfigError, in one line, for a damaged file or values that are not finite.
    """
    try:
        arrays = safetensors_numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is not a complete .safetensors file ({shorten(error)})"
        ) from None
    arrays = {
        name: array.astype(np.float32) if array.dtype.itemsize == 2 else array
        for name, array in arrays.items()
    }
    check_finite(arrays, path)
    return arrays
