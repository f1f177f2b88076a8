"""The hook for timm's train.py, given as ``timm_assemble.train_hook`` among its ``device_modules``.

train.py imports these modules before it creates anything. The import registers the models and binds the DropBlock
schedule and stored teacher logits into train.py if that is the main module; elsewhere it does nothing.
"""
import sys

from .timm_scripts.bind import bind, is_train_script

if is_train_script(sys.modules['__main__']):
    bind(sys.modules['__main__'])
