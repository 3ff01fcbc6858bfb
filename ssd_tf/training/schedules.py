"""Learning rate by step: linear warm-up, then steps or a cosine."""

import math

from ssd_tf.config import Train


def learning_rate(options: Train, step: int) -> float:
    """The learning rate of the update number `step`, from 0.

    Warm-up rises linearly from warmup_from to the full rate over warmup_steps. `step` multiplies by decay_factor at each of
    decay_steps; `cosine` falls from the end of the warm-up to 0 at options.steps (Loshchilov & Hutter 2017).
    """
    if step < options.warmup_steps:
        share = options.warmup_from + (1 - options.warmup_from) * step / options.warmup_steps
        return options.learning_rate * share
    if options.schedule == "step":
        passed = sum(step >= boundary for boundary in options.decay_steps)
        return options.learning_rate * options.decay_factor**passed
    done = (step - options.warmup_steps) / max(options.steps - options.warmup_steps, 1)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
