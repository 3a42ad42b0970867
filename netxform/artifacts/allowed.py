"""What a stored graph may call: short lists of functions, methods, attributes and layers, and nothing else that torch has.

A name that is not here is refused when a bundle is written (X0820) and when one is read (X0904).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from netxform.graph.guards import FUNCTIONS

POINTWISE = """
abs absolute acos acosh add addcdiv addcmul angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh asin asinh atan atan2
atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil clamp clamp_max clamp_min
clip conj conj_physical copysign cos cosh deg2rad digamma div divide eq erf erfc erfinv exp exp2 expm1 fix float_power floor
floor_divide fmax fmin fmod frac frexp ge greater greater_equal gt heaviside hypot i0 imag isclose isfinite isinf isnan
isneginf isposinf isreal ldexp le lerp less less_equal lgamma log log10 log1p log2 logaddexp logaddexp2 logical_and
logical_not logical_or logical_xor logit lt maximum minimum mul multiply nan_to_num ne neg negative nextafter not_equal
polar polygamma positive pow rad2deg real reciprocal remainder round rsqrt rsub sgn sigmoid sign signbit sin sinc sinh sqrt
square sub subtract tan tanh true_divide trunc where xlogy complex view_as_complex view_as_real gcd lcm
""".split()
REDUCTIONS = """
all allclose amax amin aminmax any argmax argmin argsort bincount bucketize count_nonzero cummax cummin cumprod cumsum diff
dist equal histc isin kthvalue logcumsumexp logsumexp max mean median min mode msort nanmean nanmedian nanquantile nansum
norm nonzero nonzero_static argwhere prod quantile renorm searchsorted sort std std_mean sum topk trace unique
unique_consecutive var var_mean trapezoid trapz cumulative_trapezoid
""".split()
SHAPE = """
adjoint as_strided atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors broadcast_to cat chunk clone column_stack
concat concatenate constant_pad_nd detach diag diag_embed diagflat diagonal diagonal_scatter dsplit dstack expand_copy flatten
flip fliplr flipud gather hsplit hstack index_add index_copy index_fill index_put index_reduce index_select masked_fill
masked_scatter masked_select meshgrid moveaxis movedim narrow narrow_copy permute put ravel repeat_interleave reshape roll
rot90 scatter scatter_add scatter_reduce select select_scatter slice_scatter split split_with_sizes squeeze stack swapaxes
swapdims t take take_along_dim tensor_split tile transpose tril triu unbind unflatten unsqueeze view_copy vsplit vstack
cartesian_prod combinations
""".split()
PRODUCTS = """
addbmm addmm addmv addr baddbmm bmm cdist chain_matmul cov corrcoef cross dot einsum ger inner kron matmul matrix_exp
matrix_power mm mv outer tensordot vdot convolution cholesky_inverse cholesky_solve det logdet slogdet inverse pinverse
lu_solve triangular_solve svd
""".split()
NEURAL = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
affine_grid affine_grid_generator alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm bilinear celu channel_shuffle
conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d cosine_similarity dropout dropout1d
dropout2d dropout3d elu embedding embedding_bag feature_alpha_dropout feature_dropout fold gelu glu grid_sample grid_sampler
group_norm gru gumbel_softmax hardshrink hardsigmoid hardswish hardtanh instance_norm interpolate layer_norm leaky_relu
linear local_response_norm log_softmax logsigmoid lp_pool1d lp_pool2d lp_pool3d lstm max_pool1d max_pool2d max_pool3d
max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices max_unpool1d max_unpool2d max_unpool3d mish
multi_head_attention_forward native_channel_shuffle normalize one_hot pad pairwise_distance pdist pixel_shuffle
pixel_unshuffle prelu relu relu6 rms_norm rnn_relu rnn_tanh rrelu scaled_dot_product_attention selu silu softmax softmin
softplus softshrink softsign stft istft tanhshrink threshold unfold upsample upsample_nearest upsample_bilinear
adaptive_max_pool1d_with_indices adaptive_max_pool2d_with_indices adaptive_max_pool3d_with_indices grouped_mm
""".split()
LOSSES = """
binary_cross_entropy binary_cross_entropy_with_logits cosine_embedding_loss cross_entropy gaussian_nll_loss
hinge_embedding_loss huber_loss kl_div l1_loss margin_ranking_loss mse_loss nll_loss poisson_nll_loss smooth_l1_loss
soft_margin_loss triplet_margin_loss
""".split()
ASKED = """
is_complex is_floating_point is_nonzero is_signed is_same_size numel sym_float sym_max sym_min sym_not sym_sqrt sym_sum sym_ite
""".split()
MADE = """
zeros ones full arange empty tensor linspace logspace eye full_like zeros_like ones_like empty_like rand randn randint randperm
normal bernoulli rand_like randn_like randint_like multinomial scalar_tensor
""".split()
FUNCTIONS_OF_TORCH = frozenset([*POINTWISE, *REDUCTIONS, *SHAPE, *PRODUCTS, *NEURAL, *LOSSES, *ASKED, *MADE])

# of torch.Tensor beyond the functions above; `NAME_` writes in place
METHODS = frozenset(
    """
bfloat16 bool byte char contiguous cpu cuda dim double element_size expand expand_as float get_device half
index index_put int item is_contiguous long ndimension nelement new_empty new_full new_ones new_tensor new_zeros new repeat
reshape_as requires_grad_ short size stride sum_to_size to type type_as view view_as unfold
dense_dim sparse_dim to_dense cfloat cdouble chalf
""".split()
)
IN_PLACE = frozenset([*POINTWISE, "relu", "celu", "selu", "threshold", "rrelu"]) | frozenset(
    """
copy fill zero masked_fill masked_scatter index_add index_copy index_fill index_put index_reduce scatter scatter_add
scatter_reduce squeeze unsqueeze transpose t swapaxes swapdims tril triu cumsum cumprod renorm uniform normal bernoulli
exponential geometric cauchy log_normal random fill_diagonal detach addmm addmv addr addbmm baddbmm put
""".split()
)
_ARITHMETIC = "add sub mul div truediv floordiv mod pow matmul and or xor lshift rshift".split()
_DUNDERS = frozenset(f"__{side}{n}__" for n in _ARITHMETIC for side in ("", "r", "i")) | frozenset(
    f"__{n}__" for n in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "invert", "abs")
)

# `operator.NAME`, and how many arguments it takes
OPERATORS = {
    **dict.fromkeys("add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift".split(), 2),
    **dict.fromkeys("iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor ilshift irshift".split(), 2),
    **dict.fromkeys("eq ne lt le gt ge getitem".split(), 2),
    **dict.fromkeys("neg pos invert inv not_ abs truth index".split(), 1),
    "setitem": 3,
}
OTHERS: dict[str, tuple[Callable[..., Any], int]] = {
    "math.sqrt": (math.sqrt, 1),
    "builtins.getattr": (getattr, 2),
    "builtins.len": (len, 1),
}
# attributes by the type that has them: of tensors, and of their sizes and dtypes
ATTRIBUTES = {
    "tensor": frozenset("T mT H mH real imag shape dtype device ndim is_cuda itemsize nbytes".split()),
    "sorted": frozenset({"values", "indices"}),  # what `max`, `sort`, `topk` give
    "dtype": frozenset({"is_floating_point", "is_complex"}),
    "device": frozenset({"type", "index"}),
}
READ = frozenset().union(*ATTRIBUTES.values())
# aten operators that exported programs use under names of their own
ATEN = """
_softmax _log_softmax _to_copy _unsafe_view _native_batch_norm_legit_no_training native_layer_norm native_group_norm
native_batch_norm native_dropout _adaptive_avg_pool2d _adaptive_avg_pool3d alias lift_fresh_copy lift_fresh sym_size
sym_numel scalar_tensor slice view expand repeat unfold contiguous to upsample_nearest1d upsample_nearest2d upsample_nearest3d
upsample_bilinear2d upsample_bicubic2d upsample_linear1d upsample_trilinear3d reflection_pad1d reflection_pad2d
reflection_pad3d replication_pad1d replication_pad2d replication_pad3d _assert_tensor_metadata dropout_ copy fill copy_ fill_
zero_ index new_zeros new_ones new_full new_empty type_as item _local_scalar_dense sort topk hardtanh_ hardswish_ silu_ relu6_
leaky_relu_ elu_ mish_ hardsigmoid_ log_sigmoid_forward log_sigmoid avg_pool2d im2col col2im grid_sampler_2d
conv_transpose2d _weight_norm _embedding_bag _scaled_dot_product_flash_attention_for_cpu expand_as view_as reshape_as
unsafe_split unsafe_chunk unsafe_split_with_sizes feature_dropout_ alpha_dropout_ upsample_nearest2d masked_fill rnn_relu
""".split()
_LAYERS = "activation adaptive batchnorm channelshuffle conv distance dropout flatten fold instancenorm linear normalization"
_MORE = "padding pixelshuffle pooling rnn sparse transformer upsampling loss"
LAYERS = frozenset(f"torch.nn.modules.{n}" for n in f"{_LAYERS} {_MORE}".split())
_SPACES = ("torch", "torch.functional", "torch.nn.functional", "torch._C._nn")
_WHOLE_SPACES = {
    "torch.linalg": "cholesky cond cross det diagonal eigh eigvalsh inv lstsq lu matmul matrix_norm matrix_power multi_dot "
    "norm pinv qr slogdet solve solve_triangular svd svdvals vander vecdot vector_norm",
    "torch.fft": "fft fft2 fftn fftshift hfft ifft ifft2 ifftn ifftshift ihfft irfft irfft2 irfftn rfft rfft2 rfftn",
    "torch.special": "digamma entr erf erfc erfcx erfinv exp2 expit expm1 gammaln i0 i0e i1 i1e log1p log_softmax logit "
    "logsumexp ndtr ndtri psi sinc softmax xlog1py xlogy",
}  # fmt: skip


@lru_cache(maxsize=1)
def functions() -> dict[str, Callable[..., Any]]:
    """Every function that a stored graph may call, by the name that it is stored under."""
    from torch.overrides import get_overridable_functions, resolve_name

    found: dict[str, Callable[..., Any]] = {}
    for space, several in get_overridable_functions().items():
        for function in several:
            name = resolve_name(function)
            if name and space is not torch.Tensor:
                owner, _, last = name.rpartition(".")
                if last in (FUNCTIONS_OF_TORCH if owner in _SPACES else _WHOLE_SPACES.get(owner, "").split()):
                    found[name] = function
    found |= {f"operator.{n}": getattr(operator, n) for n in OPERATORS}
    found |= {f"torch.{n}": getattr(torch, n) for n in (*MADE, "mm", "is_grad_enabled")}
    more = ("hardswish", "hardsigmoid", "grouped_mm", "upsample", "upsample_nearest", "upsample_bilinear")
    found |= {f"torch.nn.functional.{n}": getattr(nn.functional, n) for n in more if hasattr(nn.functional, n)}
    found |= {f"netxform.{n}": function for n, function in FUNCTIONS.items()}
    found |= {name: function for name, (function, _) in OTHERS.items()}
    found["torch._weight_norm"] = torch._weight_norm  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    found["torch._grouped_mm"] = torch._grouped_mm  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
    return found


@lru_cache(maxsize=1)
def names() -> dict[Any, str]:
    """The name of every function that a stored graph may call."""
    return {f: n for n, f in reversed(functions().items())}


def function(name: str) -> Any:
    """The function of that name, or None where a stored graph may not call it. Exported programs call aten operators."""
    if not name.startswith("torch.ops.aten."):
        return functions().get(name)
    operation, _, overload = name.removeprefix("torch.ops.aten.").partition(".")
    plain = operation.removesuffix("_")
    if not (operation in ATEN or operation in FUNCTIONS_OF_TORCH or (operation != plain and plain in IN_PLACE)):
        return None
    packet = getattr(torch.ops.aten, operation, None)
    return getattr(packet, overload) if packet is not None and overload in packet.overloads() else None


def is_method(name: str) -> bool:
    """Whether a stored graph may call this method of a tensor."""
    if name in _DUNDERS or name in METHODS:
        return True
    if name.endswith("_") and not name.startswith("_"):
        return name[:-1] in IN_PLACE and hasattr(torch.Tensor, name)
    return name in FUNCTIONS_OF_TORCH and not name.startswith("_") and hasattr(torch.Tensor, name)


def is_layer(cls: type[nn.Module]) -> bool:
    """Whether a stored graph may hold this layer of torch.nn: one that computes, with every size given beforehand."""
    lazy = issubclass(cls, LazyModuleMixin)
    return cls.__module__ in LAYERS and getattr(nn, cls.__name__, None) is cls and not lazy and cls is not nn.Module
