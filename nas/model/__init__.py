"""Networks: layers, subnets, the supernet that holds the weights of them all."""

# fmt: off
from nas.model.block import Block
from nas.model.cuts import DEPTH, FACTOR, RIDGE, cut_matrices, factor_of
from nas.model.families.features import at_stride
from nas.model.families.vit import Subnet
from nas.model.folder import check_finite, check_inside, check_model_folder
from nas.model.instruments import Instruments, watched_networks
from nas.model.layers.dynamic import DynamicAttention
from nas.model.layers.feed_forward import activation_aware_factors, svd_factors
from nas.model.layers.glad import average_tokens, reduced_sides
from nas.model.layers.maps import Guidance, Provided
from nas.model.layers.static import log_mean_map
from nas.model.supernet import Supernet
from nas.model.timm_entry import UNREADABLE, pretrained_model
from nas.model.transport import transport_map
from nas.model.tree import SubnetParts, SubnetTree, subtrees

__all__ = [
    "DEPTH", "FACTOR", "RIDGE", "UNREADABLE", "Block", "DynamicAttention", "Guidance", "Instruments", "Provided",
    "Subnet", "SubnetParts", "SubnetTree", "Supernet", "activation_aware_factors", "at_stride",
    "average_tokens", "check_finite", "check_inside", "check_model_folder", "cut_matrices", "factor_of",
    "log_mean_map", "pretrained_model", "reduced_sides", "subtrees", "svd_factors", "transport_map", "watched_networks",
]
