"""Training parts: the DropBlock schedule and distillation from stored teacher logits or stored views.

Each part works alone in a custom training loop; ``train_hook`` binds them into timm's train.py.
"""
from ..data.fingerprint import SampleFingerprint, fingerprint
from .distillation import StoredLogitsDistillationTask, distillation_weights, pack_targets, unpack_targets
from .drop_block_schedule import drop_block_schedule
from .logit_store import TeacherLogits
from .losses import dist, distillation_cross_entropy, distillation_loss, dkd, kl, standardize_logits
from .precompute import store_teacher_logits, store_teacher_views
from .several_teachers import combine_stores, mean_logits
from .store import StoreInfo, StoreWriter
from .teacher_mixup import TeacherCollate, TeacherCollateMixup, TeacherDataset, TeacherMixup, mix_rows, mix_with_matrix
from .view_mixing import describe_mixing
from .view_dataset import RepeatedViews, ViewDataset
from .view_store import TeacherViews, ViewInfo
from .view_transform import describe_transform, seeded_generators

__all__ = [
    'StoredLogitsDistillationTask', 'distillation_cross_entropy', 'distillation_weights', 'pack_targets',
    'unpack_targets', 'drop_block_schedule', 'SampleFingerprint', 'fingerprint', 'StoreInfo', 'TeacherLogits',
    'StoreWriter', 'TeacherCollate', 'TeacherCollateMixup', 'TeacherDataset', 'TeacherMixup', 'mix_rows',
    'mix_with_matrix', 'store_teacher_logits', 'store_teacher_views', 'RepeatedViews', 'ViewDataset', 'TeacherViews',
    'ViewInfo', 'describe_mixing', 'describe_transform', 'seeded_generators', 'dist', 'distillation_loss', 'dkd', 'kl',
    'combine_stores', 'mean_logits', 'standardize_logits',
]
