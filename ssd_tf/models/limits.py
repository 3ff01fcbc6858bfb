"""Inputs that are too small for the maps that are asked for."""


class TooSmall(ValueError):
    """A map vanishes before the last: a larger input or fewer maps help."""


def check_window(x, size, pad, name):
    """Raises TooSmall where a convolution of `size` with `pad` pixels around has no place on x [B, H, W, channels]."""
    if min(x.shape[1:3]) + 2 * pad < size:
        raise TooSmall(f"the input is too small for {name}, on {x.shape[1]} x {x.shape[2]} pixels")
