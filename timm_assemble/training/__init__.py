"""Training parts: the DropBlock schedule and distillation from stored teacher logits.

Each part works alone in a custom training loop; ``train_hook`` binds them into timm's train.py.
"""
from .dataset_fingerprint import SampleFingerprint, fingerprint
from .distillation import (
    StoredLogitsDistillationTask, distillation_cross_entropy, distillation_weights, pack_targets, unpack_targets,
)
from .drop_block_schedule import drop_block_schedule
from .logit_store import StoreInfo, TeacherLogits, TeacherLogitsWriter
from .precompute_logits import store_teacher_logits
from .teacher_mixup import TeacherCollate, TeacherCollateMixup, TeacherDataset, TeacherMixup, mix_rows, mix_with_matrix

__all__ = [
    'StoredLogitsDistillationTask', 'distillation_cross_entropy', 'distillation_weights', 'pack_targets',
    'unpack_targets', 'drop_block_schedule', 'SampleFingerprint', 'fingerprint', 'StoreInfo', 'TeacherLogits',
    'TeacherLogitsWriter', 'TeacherCollate', 'TeacherCollateMixup', 'TeacherDataset', 'TeacherMixup', 'mix_rows',
    'mix_with_matrix', 'store_teacher_logits',
]
