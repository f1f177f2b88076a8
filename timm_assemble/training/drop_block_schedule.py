"""The DropBlock rate as a function of the training step."""
import math

from ..errors import UserError

__all__ = ['drop_block_schedule']


def drop_block_schedule(step: int, total: int, start: float, end: float) -> float:
    r"""Return the DropBlock rate of one update, linear in the step.

    .. math:: r = r_0 + (r_1 - r_0) \min(t / T, 1)

    The rate depends on the step alone, so a resumed training continues it. In a custom training loop, before each
    update:

    ```python
    model.set_drop_block_rate(drop_block_schedule(step, total, 0.0, 0.1))
    ```

    Args:
        step: Optimizer updates done so far, t; 0 before the first.
        total: Optimizer updates of the whole training, T. Later steps have the rate ``end``.
        start: Rate at step 0, from 0 to 1 (1 - keep_prob).
        end: Rate at step ``total``, from 0 to 1. The paper trains with 0 to 0.1 and fine-tunes with 0.1 to 0.3.

    Raises:
        UserError: An argument is outside its range.

    Source: arXiv 2001.06268 section 3.2 and 4.1; arXiv 1810.12890 section 3.
    """
    if step < 0:
        raise UserError(f'step must be 0 or more, got {step!r}')
    if not 1 <= total < math.inf:
        raise UserError(f'total must be 1 or more and finite, got {total!r}')
    for name, rate in (('start', start), ('end', end)):
        if not 0.0 <= rate <= 1.0:
            raise UserError(f'{name} must be a DropBlock rate from 0 to 1, got {rate!r}')
    return start + (end - start) * step / total if step < total else end
