"""Weights of the official TensorFlow implementation, brought to these models."""
from .tf_names import state_dict_from_tf, tf_names

__all__ = ['state_dict_from_tf', 'tf_names']
