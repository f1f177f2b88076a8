"""The step of a training to its DropBlock rate. Knows nothing but arithmetic."""

__all__ = ['drop_block_schedule']


def drop_block_schedule(step: int, total: int, start: float, end: float) -> float:
    r"""DropBlock rate of one update, linear in the step.

    .. math:: r = r_0 + (r_1 - r_0) \min(t / T, 1)

    It has no state: the rate of a step is the same after a restart. In a loop of one's own, before each update:

    ```python
    model.set_drop_block_rate(drop_block_schedule(step, total, 0.0, 0.1))
    ```

    Args:
        step: Updates of the optimizer done so far, t; 0 before the first.
        total: Updates of the whole training, T. Later steps have the rate ``end``.
        start: Rate at step 0, 0 to 1 (1 - keep_prob).
        end: Rate at step ``total``, 0 to 1; 0.1 in the paper's training, 0.1 to 0.3 in its fine-tuning.

    Raises:
        ValueError: An argument outside its range.

    Source: arXiv 2001.06268 section 3.2 and 4.1; arXiv 1810.12890 section 3.
    """
    if step < 0:
        raise ValueError(f'step must be 0 or more, got {step!r}.')
    if total < 1:
        raise ValueError(f'total must be 1 or more, got {total!r}.')
    for name, rate in (('start', start), ('end', end)):
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f'{name} must be a DropBlock rate from 0 to 1, got {rate!r}.')
    return start + (end - start) * step / total if step < total else end
