"""Learning rates as fractions of the full rate, by step: warm-up, steps, cosine.

A step is the index of an update, from 0.
"""

import math


def linear_warmup(step, num_steps, first_fraction) -> float:
    """A linear rise from first_fraction at step 0 to 1 at num_steps."""
    return first_fraction + (1 - first_fraction) * step / num_steps


def step_decay(step, decay_steps, decay_factor) -> float:
    """1 at first; multiplied by decay_factor at each of decay_steps."""
    num_decays = sum(step >= boundary for boundary in decay_steps)
    return decay_factor**num_decays


def cosine_decay(step, num_steps) -> float:
    """A cosine from 1 at step 0 to 0 at num_steps and after (Loshchilov & Hutter 2017)."""
    progress = min(step / max(num_steps, 1), 1.0)
    return 0.5 * (1 + math.cos(math.pi * progress))
