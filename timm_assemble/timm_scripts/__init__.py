"""timm's scripts: where they are, how they run, and what the train hook binds into train.py."""
