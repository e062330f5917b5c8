"""Learning-rate factors as functions of the step, so that a resumed run needs no scheduler state."""


def step_decay(step: int, every: int, gamma: float) -> float:
    """`gamma` to the power of the number of completed intervals of `every` steps; `every` = 0: always 1.

    Source: SSL-ALPNet, released code (MultiStepLR at 1000, 2000, ..., factor 0.95).
    """
    return gamma ** (step // every) if every else 1.0
