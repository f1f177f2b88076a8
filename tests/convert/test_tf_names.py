"""A state dict from variables: what is rejected, by the variable's name in one line, and the tensors' layout."""
import numpy as np
import pytest
import timm

from timm_assemble.convert import convert, state_dict_from_tf

from .._official import make_variables
from .._tensorflow import fake_checkpoint, with_slots

VARIANCE = 'resnet_model/stage4/batch_normalization_1/moving_variance'


def rename(v):
    v['resnet_model/stage4/conv2d_99/kernel'] = v.pop('resnet_model/stage4/conv2d_1/kernel')


@pytest.mark.parametrize('damage, message', [
    (rename, r'missing: resnet_model/stage4/conv2d_1/kernel \(for stages.3.1.conv1.conv.weight, shape .*; not used: '
             'resnet_model/stage4/conv2d_99/kernel'),
    (lambda v: v.update({'resnet_model/extra/kernel': np.ones(3, np.float32)}), 'not used: resnet_model/extra/kernel'),
    (lambda v: v.update({'resnet_model/dense/bias': np.ones(7, np.float32)}), r'dense/bias is \(7,\) .*bias \(11'),
    (lambda v: v['resnet_model/dense/kernel'].__setitem__((3, 4), np.nan), 'dense/kernel: .* finite, got 1 of 2816 '),
    (lambda v: v['resnet_model/stage2/big2/batch_normalization/gamma'].fill(np.inf), '/gamma: .*, got 64 of 64 values'),
    (lambda v: v[VARIANCE].__setitem__(2, -0.5), f'{VARIANCE}: .* must be 0 or more, got -0.5$'),
    (lambda v: [v.pop(n) for n in [*v] if '/beta' in n], 'missing: .*; and 92 more$'),
])
def test_damaged_variables_are_named_in_one_line(damage, message):
    variables = make_variables('tiny_assemble50')
    damage(variables)
    with pytest.raises(ValueError, match=message) as error:
        convert(fake_checkpoint(with_slots(variables)))
    assert '\n' not in str(error.value)


def test_kernel_and_bias_must_drop_the_same_class():
    variables = make_variables('tiny_r50d_sk')
    variables['resnet_model/dense/bias'] = np.zeros(10, np.float32)
    model = timm.create_model('assemble_resnet50_d_sk', width=8, num_classes=10, device='meta')
    with pytest.raises(ValueError, match=r'1 differences.*\n.*dense/kernel has one class more'):
        state_dict_from_tf(variables, model)
