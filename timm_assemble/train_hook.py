"""The hook for timm's train.py, given as ``timm_assemble.train_hook`` among its ``device_modules``.

train.py imports these modules before it creates anything. The import registers the models and binds the DropBlock
schedule and stored teacher logits into the main module; it fails if that is not train.py. Elsewhere import
``timm_assemble.timm_scripts.bind``.
"""
import sys

from .timm_scripts.bind import bind

bind(sys.modules['__main__'])
