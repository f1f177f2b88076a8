"""Fast inference and exported files."""
from .calibration import split_images
from .export import export_model, load_exported
from .fold import fold_batch_norms
from .gate import Agreement, Gate, GateError
from .metadata import read_metadata
from .openvino import OpenVINOModel
from .optimize import OptimizedModel, optimize_for_inference

__all__ = ['Agreement', 'Gate', 'GateError', 'OpenVINOModel', 'OptimizedModel', 'export_model', 'fold_batch_norms',
           'load_exported', 'optimize_for_inference', 'read_metadata', 'split_images']
