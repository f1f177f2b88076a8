"""Assemble-ResNet for timm. Importing this package registers its models with ``timm.create_model``."""
from .assemble_resnet import AssembleResNet
from .deploy import optimize_for_inference

__version__ = '0.1.0'
__all__ = ['AssembleResNet', 'optimize_for_inference', '__version__']
