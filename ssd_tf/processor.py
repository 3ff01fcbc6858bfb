"""The processor: the cores of this process, and oneDNN, TensorFlow's kernels for x86.

TensorFlow uses oneDNN unasked on processors with AVX-512 or AVX-VNNI only; others gain, too.
"""

import os
import platform

# Values of ONEDNN_MAX_CPU_ISA, which imitates an older processor.
_WITHOUT_AVX512 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2")


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def turn_on_onednn():
    """Let TensorFlow use oneDNN on x86, unless the user has set the variable.

    Without effect if TensorFlow has been imported already.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def uses_onednn() -> bool:
    """Whether the TensorFlow of this process uses oneDNN."""
    from tensorflow.python.util import _pywrap_util_port

    return _pywrap_util_port.IsMklEnabled()


def avoid_slow_fusions(tensorflow):
    """Keep TensorFlow from fusing batch norm and activations into convolutions that slow down.

    Without AVX-512, oneDNN's convolution of channels-last images is a matrix multiplication, after
    which whatever is fused is computed number by number: that takes up to 50 times as long as the
    convolution.
    tensorflow: the module, which importing this file does not import.
    """
    if uses_onednn() and not _has_avx512():
        tensorflow.config.optimizer.set_experimental_options({"remapping": False})


def _has_avx512():
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_AVX512:
        return False
    import numpy._core._multiarray_umath as umath  # not for `ssd --help`

    features = umath.__cpu_features__
    return all(features.get(name) for name in ("AVX512F", "AVX512BW", "AVX512VL"))
