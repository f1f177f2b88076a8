"""Assemble-ResNet and -MobileNet for timm. Importing this package registers its models with ``timm.create_model``."""
from .runtime.interrupt import end_on_interrupt

end_on_interrupt()  # before the imports that take seconds

from .deploy.optimize import optimize_for_inference  # noqa: E402
from .models.assemble_mobilenet import AssembleMobileNet  # noqa: E402
from .models.assemble_resnet import AssembleResNet  # noqa: E402

__version__ = '0.1.0'
__all__ = ['AssembleMobileNet', 'AssembleResNet', 'optimize_for_inference', '__version__']
