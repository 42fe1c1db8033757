"""Own normalization layers; those that torch has take its place: same arguments, state dicts and numbers.

Each module is a page on one layer: the formula, the shapes, the state, the paper. `reference` holds the
formulas as code, `functional` the same as functions that choose a backend.
"""

from normdoctor.layers.backends import use_backend
from normdoctor.layers.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from normdoctor.layers.batchrenorm import BatchRenorm
from normdoctor.layers.dynamictanh import DyT
from normdoctor.layers.filterresponsenorm import FilterResponseNorm
from normdoctor.layers.frozenbatchnorm import FrozenBatchNorm
from normdoctor.layers.ghostbatchnorm import GhostBatchNorm
from normdoctor.layers.globalresponsenorm import GRN
from normdoctor.layers.groupnorm import GroupNorm
from normdoctor.layers.instancenorm import InstanceNorm1d, InstanceNorm2d, InstanceNorm3d
from normdoctor.layers.layernorm import LayerNorm
from normdoctor.layers.layernorm2d import LayerNorm2d
from normdoctor.layers.localresponsenorm import LocalResponseNorm
from normdoctor.layers.maskedbatchnorm import MaskedBatchNorm
from normdoctor.layers.rmsnorm import RMSNorm
from normdoctor.layers.scalenorm import ScaleNorm
from normdoctor.layers.syncbatchnorm import SyncBatchNorm
from normdoctor.layers.weightnorm import weight_norm
from normdoctor.layers.weightstandardization import weight_standardization

__all__ = [
    "GRN",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchRenorm",
    "DyT",
    "FilterResponseNorm",
    "FrozenBatchNorm",
    "GhostBatchNorm",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LayerNorm2d",
    "LocalResponseNorm",
    "MaskedBatchNorm",
    "RMSNorm",
    "ScaleNorm",
    "SyncBatchNorm",
    "use_backend",
    "weight_norm",
    "weight_standardization",
]
