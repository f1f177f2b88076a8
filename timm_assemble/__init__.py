"""Assemble-ResNet for timm. Importing this package registers its models with ``timm.create_model``."""
from .deploy.optimize import optimize_for_inference
from .models.assemble_resnet import AssembleResNet

__version__ = '0.1.0'
__all__ = ['AssembleResNet', 'optimize_for_inference', '__version__']
