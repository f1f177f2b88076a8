"""Fast inference and exported files."""
from .export import export_model, load_exported
from .fold import fold_batch_norms
from .metadata import read_metadata
from .optimize import OptimizedModel, optimize_for_inference

__all__ = ['OptimizedModel', 'export_model', 'fold_batch_norms', 'load_exported', 'optimize_for_inference',
           'read_metadata']
