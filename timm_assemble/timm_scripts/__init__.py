"""Run timm's scripts with this package's models; bind its training parts into train.py."""
HOOK = 'timm_assemble.train_hook'  # a module for train.py's device_modules
