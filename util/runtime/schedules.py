"""Learning-rate factors as pure functions of the step, so that a resumed run needs no scheduler state."""

import math


def step_decay(step: int, every: int, gamma: float) -> float:
    """`gamma` to the power of the number of completed intervals of `every` steps.

    Source: SSL-ALPNet, released code (MultiStepLR at 1000, 2000, ..., factor 0.95).
    """
    return gamma ** (step // every)


def polynomial_decay(step: int, n_steps: int, power: float, end_factor: float = 0.0) -> float:
    """Falls from 1 at step 0 to `end_factor` at `n_steps` as `(1 - step / n_steps) ** power`.

    Source: DeepLab (Chen et al., TPAMI 2018), section 4.1; PSSNet uses power 1.
    """
    return end_factor + (1 - end_factor) * max(0.0, 1 - step / n_steps) ** power


def cosine_decay(step: int, n_steps: int, end_factor: float = 0.0) -> float:
    """Falls from 1 at step 0 to `end_factor` at `n_steps` along half a cosine.

    Source: SGDR (Loshchilov and Hutter, ICLR 2017), equation 5, without restarts.
    """
    return end_factor + (1 - end_factor) * (1 + math.cos(math.pi * min(1.0, step / n_steps))) / 2


def linear_warmup(step: int, n_steps: int, start_factor: float) -> float:
    """Rises linearly from `start_factor` at step 0 to 1 at `n_steps`; then 1.

    Source: PSSNet, released configuration (1500 iterations from 1e-6).
    """
    return 1 - (1 - step / n_steps) * (1 - start_factor) if step < n_steps else 1.0
