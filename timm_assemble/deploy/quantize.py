"""Post-training static quantization to int8 by NNCF, of ONNX's and OpenVINO's models."""
import contextlib
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterable

import torch

__all__ = ['BATCH_SIZE', 'quantize']

BATCH_SIZE = 16  # of the images that calibrate


def quantize(model: Any, batches: Iterable[Any]) -> Any:
    """Quantize a model: weights int8 per output channel, activations int8 per tensor.

    Ranges are minima and maxima over all images, also before depthwise convolutions, where NNCF's default is a range
    per channel, which ONNX Runtime cannot run in int8. On x86 without VNNI, sums of two products can overflow into 16
    bits: there, weights have 7 bits.

    Args:
        model: Of OpenVINO or ONNX.
        batches: What the model takes: arrays, or dictionaries of arrays by input.
    """
    with contextlib.redirect_stdout(io.StringIO()), ThreadPoolExecutor(1) as thread:  # without progress bars
        import nncf
        from nncf.quantization import advanced_parameters as parameters
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        nncf.set_log_level(logging.ERROR)
        calls = list(batches)
        fix = 'DISABLE' if torch.cpu._is_vnni_supported() else 'ENABLE'
        advanced = parameters.AdvancedQuantizationParameters(
            overflow_fix=parameters.OverflowFix[fix],
            activations_quantization_params=parameters.QuantizationParameters(per_channel=False),
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX)
        # NNCF loads OpenVINO's plugin, which changes its thread's stack for signals: see openvino._core
        return thread.submit(nncf.quantize, model, nncf.Dataset(calls), subset_size=len(calls),
                             advanced_parameters=advanced).result()
