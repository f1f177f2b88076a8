"""Conversion of checkpoints of the official TensorFlow implementation."""
from .conversion import convert, write
from .tf_checkpoint import find_checkpoint, open_checkpoint
from .tf_names import MisfitError, state_dict_from_tf, tf_names
from .variants import infer_variant

__all__ = [
    'MisfitError', 'convert', 'find_checkpoint', 'infer_variant', 'open_checkpoint', 'state_dict_from_tf', 'tf_names',
    'write',
]
