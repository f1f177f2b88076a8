"""For timm's train.py: ``--device-modules timm_assemble.train_hook`` registers the models and binds what we add.

The script imports the modules named by that argument before it makes anything. Importing this one from elsewhere binds
to whatever is the main module, and fails if that is no train.py; ``train_binding`` is without that effect.
"""
import sys

from .timm_scripts.bind import bind

bind(sys.modules['__main__'])
