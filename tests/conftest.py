"""For every test: the models are registered, and a process keeps to one core, since two run side by side."""
import torch

import timm_assemble  # noqa: F401

torch.set_num_threads(1)
