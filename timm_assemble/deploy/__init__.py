"""Fast inference and exported files."""
from .calibration import split_images
from .export import export_model, load_exported
from .fold import fold_batch_norms
from .gate import Agreement, Gate, GateError
from .metadata import read_metadata
from .optimize import OptimizedModel, optimize_for_inference
from .quantize_onnx import export_quantized

__all__ = ['Agreement', 'Gate', 'GateError', 'OptimizedModel', 'export_model', 'export_quantized', 'fold_batch_norms',
           'load_exported', 'optimize_for_inference', 'read_metadata', 'split_images']
