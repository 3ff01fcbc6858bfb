"""oneDNN, the library of kernels for x86 processors that TensorFlow brings along.

TensorFlow uses it unasked on processors with AVX-512 or AVX-VNNI only; others gain from it, too.
"""

import os
import platform

# Values of ONEDNN_MAX_CPU_ISA, which imitates an older processor.
_WITHOUT_AVX512 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2")


def turn_on():
    """Let TensorFlow use oneDNN on x86, unless the user has set the variable.

    Without effect if TensorFlow has been imported already.
    """
    if platform.machine().lower() in ("x86_64", "amd64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def is_on() -> bool:
    """Whether the TensorFlow of this process uses oneDNN."""
    from tensorflow.python.util import _pywrap_util_port

    return _pywrap_util_port.IsMklEnabled()


def avoid_slow_fusions():
    """Keep TensorFlow from fusing batch norm and activations into convolutions that slow down.

    Without AVX-512, oneDNN's convolution of channels-last images is a matrix multiplication, after
    which whatever is fused is computed number by number: that takes up to 50 times as long as the
    convolution.
    """
    if is_on() and not _has_avx512():
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"remapping": False})


def _has_avx512():
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_AVX512:
        return False
    from numpy._core._multiarray_umath import __cpu_features__

    return all(__cpu_features__.get(name) for name in ("AVX512F", "AVX512BW", "AVX512VL"))
