"""Assemble-ResNet and -MobileNet for timm. Importing this package registers its models with ``timm.create_model``."""
from typing import TYPE_CHECKING, Any

from .models.assemble_mobilenet import AssembleMobileNet
from .models.assemble_resnet import AssembleResNet

if TYPE_CHECKING:
    from .deploy.optimize import optimize_for_inference

__version__ = '0.1.0'
__all__ = ['AssembleMobileNet', 'AssembleResNet', 'optimize_for_inference', '__version__']


def __getattr__(name: str) -> Any:
    if name == 'optimize_for_inference':  # imports the compiler, which takes longer than all the rest
        from .deploy.optimize import optimize_for_inference

        return optimize_for_inference
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
