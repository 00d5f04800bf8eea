"""Learning-rate schedules that adapt to the length of a training."""

from __future__ import annotations

from typing import NamedTuple

import optax

from difmd.errors import InputError


class Schedule(NamedTuple):
    """Learning rate relative to its peak; made by `warmup_cosine` and `reduce_on_plateau`.

    Attributes:
        warm_up: fraction of all steps during which the learning rate rises linearly from 0.
        final: fraction of the peak at the end of the training, or below which a plateau does not reduce it.
        factor: of the reduction on a plateau; None: cosine decay.
        patience: validations without improvement before a reduction; None: cosine decay.
    """

    warm_up: float
    final: float
    factor: float | None = None
    patience: int | None = None

    def at_peak(self, peak: float, n_steps: int) -> optax.Schedule:
        """The optax schedule of a training of `n_steps` steps, without the reductions on a plateau."""
        warm_up = max(int(self.warm_up * n_steps), 1)
        if self.factor is not None:
            return optax.linear_schedule(0.0, peak, warm_up)
        n_decay = max(n_steps, warm_up + 1)
        return optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, n_decay, self.final * peak)


def warmup_cosine(*, warm_up: float = 0.01, final: float = 0.01) -> Schedule:
    """Linear warm-up, then cosine decay over the rest of the training.

    Args:
        warm_up: fraction of all steps during which the learning rate rises from 0.
        final: fraction of the peak that is left at the end; 1 keeps the learning rate constant.

    Returns:
        The schedule, for `Recipe`.

    Raises:
        InputError: a fraction outside 0 … 1.

    References:
        Loshchilov & Hutter, ICLR 2017, arXiv:1608.03983.
    """
    _check_fractions(warm_up=warm_up, final=final)
    return Schedule(warm_up, final)


def reduce_on_plateau(
    *, factor: float = 0.5, patience: int = 10, minimum: float = 0.01, warm_up: float = 0.01
) -> Schedule:
    """Linear warm-up, then a reduction whenever the validation loss has stopped improving.

    Args:
        factor: by which the learning rate is multiplied; between 0 and 1.
        patience: validations without improvement before a reduction.
        minimum: fraction of the peak below which the learning rate is not reduced.
        warm_up: fraction of all steps during which the learning rate rises from 0.

    Returns:
        The schedule, for `Recipe`.

    Raises:
        InputError: `factor` not between 0 and 1, `patience` below 1, or a fraction outside 0 … 1.
    """
    if not 0 < factor < 1:
        raise InputError(f"factor = {factor} must lie between 0 and 1, both excluded")
    if patience < 1:
        raise InputError(f"patience = {patience} must be at least 1")
    _check_fractions(minimum=minimum, warm_up=warm_up)
    return Schedule(warm_up, minimum, factor, patience)


def _check_fractions(**fractions: float) -> None:
    for name, value in fractions.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} = {value} must lie between 0 and 1")
