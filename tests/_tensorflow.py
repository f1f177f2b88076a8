"""Checkpoints for the tests of conversion: written by TensorFlow, or a stand-in that needs no TensorFlow."""
import os
import warnings
from functools import cache

import numpy as np

from timm_assemble.convert.tf_checkpoint import CheckpointVariables


@cache
def import_tensorflow():
    """Import TensorFlow in the first test that needs it, after torch and timm: it takes seconds."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # TensorFlow's own
        import tensorflow
    return tensorflow


class FakeReader:
    """TensorFlow's reader over a dict of arrays; ``asked`` lists what was read."""

    def __init__(self, variables):
        self.variables = variables
        self.asked = []

    def get_variable_to_shape_map(self):
        return {name: list(array.shape) for name, array in self.variables.items()}

    def get_tensor(self, name):
        self.asked.append(name)
        return self.variables[name]


def fake_checkpoint(variables, *files, **kwargs):
    """An open checkpoint of these variables."""
    return CheckpointVariables(FakeReader(variables), [*files], '2', **kwargs)


def with_slots(variables):
    """Variables as the official training saves them: with the momentum of each trainable one, and the step."""
    slots = {f'{name}/Momentum': np.full_like(array, 7) for name, array in variables.items()
             if name.rsplit('/', 1)[-1] in ('kernel', 'gamma', 'beta', 'bias')}
    return {**variables, **slots, 'global_step': np.array(12345, np.int64)}


def write_checkpoint(folder, variables):
    """Write a TensorFlow 1 checkpoint by the saver's operation, with its ``checkpoint`` file; return the prefix."""
    tf = import_tensorflow()
    prefix = str(folder / 'model.ckpt-12345')
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=[*variables], shape_and_slices=[''] * len(variables), tensors=[*variables.values()])
    tf.compat.v1.train.update_checkpoint_state(str(folder), os.path.basename(prefix))
    return prefix


def write_checkpoint_by_saver(folder, variables):
    """Write the same by the saver that the official code uses; return the prefix."""
    tf = import_tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        made = {name: tf.compat.v1.Variable(array, name=name, use_resource=False) for name, array in variables.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        return tf.compat.v1.train.Saver(made).save(
            session, str(folder / 'model.ckpt'), global_step=12345, write_meta_graph=False)
