"""Checkpoints for the tests of conversion: TensorFlow's own, and a reader without TensorFlow that behaves like its."""
import os
import warnings
from functools import cache
from types import SimpleNamespace

import numpy as np


@cache
def import_tensorflow():
    """TensorFlow, at the first test that needs it: seconds that no other test waits for, after torch and timm."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of its own making
        import tensorflow
    return tensorflow


class FakeReader:
    """The three methods of TensorFlow's reader over a dict of arrays; ``asked`` lists what was read."""

    def __init__(self, variables):
        self.variables = variables
        self.asked = []

    def get_variable_to_shape_map(self):
        return {name: list(array.shape) for name, array in self.variables.items()}

    def get_variable_to_dtype_map(self):
        return {name: SimpleNamespace(size=array.itemsize) for name, array in self.variables.items()}

    def get_tensor(self, name):
        self.asked.append(name)
        return self.variables[name]


def with_slots(variables, step=12345):
    """Variables as the official training leaves them: beside each trainable one its momentum, and the step."""
    slots = {f'{name}/Momentum': np.full_like(array, 7) for name, array in variables.items()
             if name.rsplit('/', 1)[-1] in ('kernel', 'gamma', 'beta', 'bias')}
    return {**variables, **slots, 'global_step': np.array(step, np.int64)}


def write_checkpoint(folder, variables, step=12345):
    """Write a TensorFlow 1 checkpoint by the operation behind the old saver, and its note; gives the prefix."""
    tf = import_tensorflow()
    prefix = str(folder / f'model.ckpt-{step}')
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=[*variables], shape_and_slices=[''] * len(variables), tensors=[*variables.values()])
    tf.compat.v1.train.update_checkpoint_state(str(folder), os.path.basename(prefix))
    return prefix


def write_checkpoint_by_saver(folder, variables, step=12345):
    """The same by the saver itself, which the official code uses: variables in a graph and a session."""
    tf = import_tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = {name: tf.compat.v1.Variable(array, name=name, use_resource=False) for name, array in variables.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        return tf.compat.v1.train.Saver(made).save(
            session, str(folder / 'model.ckpt'), global_step=step, write_meta_graph=False)
