"""Inputs that are too small for the requested feature maps."""


class InputTooSmallError(ValueError):
    """A map vanishes before the last one: a larger input or fewer maps help."""


def check_window(x, size, pad, name):
    """Raise InputTooSmallError unless a kernel of `size` fits on x [B, H, W, channels].

    pad: pixels added on every side; name: of the layer.
    """
    if min(x.shape[1:3]) + 2 * pad < size:
        raise InputTooSmallError(
            f"the input is too small for {name}, on {x.shape[1]} x {x.shape[2]} pixels"
        )
