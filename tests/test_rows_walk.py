"""Every operation of ATen that PyTorch differentiates is classified, also one that comes to be.

PyTorch lists them with their derivatives. Each is a row or a composition, or named in
:mod:`kinkcheck.ops.unseen`, or listed here with a reason why it is no concern.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchgen

from kinkcheck.ops.compositions import COMPOSITIONS
from kinkcheck.ops.table import ROWS
from kinkcheck.ops.unseen import key, unseen_row

_INTERNAL = re.compile(
    "backward|foreach|sparse|csr|coo|nested|cudnn|mkldnn|miopen|mps|nnpack|_test_|^_fused|_thnn"
)
"""What other operations call, lists of them, other layouts of memory, other devices."""

_SMOOTH = {
    "linear in what it is given; where it reads, indices and masks say": """
        add addbmm addcdiv addcmul addmm addmv addr baddbmm bmm mm mv dot vdot matmul linear sub
        rsub mul neg sum nansum mean trace cumsum lerp _trilinear _grouped_mm linalg_cross
        _adaptive_avg_pool2d _adaptive_avg_pool3d avg_pool2d avg_pool3d
        max_unpool2d max_unpool3d col2im im2col affine_grid_generator
        _convolution convolution convolution_overrideable conv_tbc conv_depthwise3d
        _conv_depthwise2d _slow_conv2d_forward slow_conv3d_forward slow_conv_dilated2d
        slow_conv_dilated3d slow_conv_transpose2d slow_conv_transpose3d
        _fft_c2c _fft_c2r _fft_r2c deg2rad rad2deg
        constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
        replication_pad1d replication_pad2d replication_pad3d
        _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa
        _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
        upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_trilinear3d
        upsample_nearest1d upsample_nearest2d upsample_nearest3d
        embedding gather take index index_add index_copy index_fill index_put index_select
        _index_put_impl_ _unsafe_index _unsafe_index_put _unsafe_masked_index
        _unsafe_masked_index_put_accumulate put scatter scatter_add
        masked_fill masked_scatter masked_select where nll_loss_forward nll_loss2d_forward
    """,
    "moves entries, or looks at them in another way": """
        _coalesce _conj _conj_physical conj_physical_ _lazy_clone _neg_view _pack_padded_sequence
        _pin_memory _reshape_alias _reshape_copy _to_copy _to_dense _unsafe_view alias as_strided
        as_strided_ as_strided_scatter block_diag cat channel_shuffle chunk clone complex
        diag_embed diagonal diagonal_scatter expand fill fill_ flip lift lift_fresh lu_unpack
        narrow_copy permute pixel_shuffle pixel_unshuffle repeat roll rot90 select select_scatter
        slice slice_inverse slice_scatter split split_with_sizes squeeze squeeze_ stack t t_
        to_padded_tensor transpose transpose_ tril triu unbind unfold unsafe_split
        unsafe_split_with_sizes unsqueeze unsqueeze_ values view view_as_complex view_as_real zero_
    """,
    "smooth where it is finite": """
        _batch_norm_no_update _batch_norm_with_update native_batch_norm native_group_norm
        native_layer_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
        _ctc_loss _efficient_attention_forward _flash_attention_forward
        _scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention
        _scaled_dot_product_flash_attention_for_cpu
        _scaled_dot_product_fused_attention_overrideable
        _log_softmax _softmax _safe_softmax _masked_softmax logsumexp logcumsumexp logaddexp
        logaddexp2 log_sigmoid_forward sigmoid silu mish gelu glu tanh
        asinh atan atanh cos cosh sin sinc sinh tan exp exp2 expm1 log log10 log1p log2 ldexp
        digamma lgamma mvlgamma polygamma polygamma_ erf erfc erfinv i0 igamma igammac
        special_erfcx special_i1 special_i1e special_log_ndtr special_ndtri special_zeta
        reciprocal rsqrt cumprod prod var var_mean polar
        binary_cross_entropy binary_cross_entropy_with_logits mse_loss soft_margin_loss
        _weight_norm_interface
    """,
    "its pieces have one slope where they meet": "celu celu_ huber_loss softplus",
    "smooth where the matrix is regular": """
        cholesky cholesky_inverse cholesky_solve linalg_cholesky_ex
        _linalg_det _linalg_slogdet _linalg_solve_ex linalg_inv_ex linalg_lu_solve
        linalg_solve_triangular triangular_solve linalg_qr linalg_householder_product ormqr
        linalg_matrix_exp
    """,
    "draws, without a gradient or as if what was drawn were given": """
        _standard_gamma native_dropout normal normal_ cauchy_ exponential_ geometric_ log_normal_
        random_ uniform_
    """,
    "the neighbour of a number": "nextafter",
    "moves what is not finite alone": "nan_to_num",
}


def _differentiated() -> set[str]:
    """The operations that have a formula in PyTorch's list of derivatives."""
    folder = Path(torchgen.__file__).parent / "packaged" / "autograd"
    text = (folder / "derivatives.yaml").read_text()
    found = set()
    for entry in re.split(r"^- name: *", text, flags=re.MULTILINE)[1:]:
        head, *lines = entry.splitlines()
        formulas = [line for line in lines if re.match(r"\s+[\w, ]+:", line)]
        if any(
            not re.match(r"\s+(output_differentiability|result|dispatch)\b", line)
            and not re.search(r": *(non_differentiable|not_implemented)", line)
            for line in formulas
        ):
            found.add(head.strip("\"' ").partition("(")[0].partition(".")[0])
    return found


def _known() -> set[str]:
    spellings = (each for row in ROWS for each in row.spellings.split())
    names = {spelling.rpartition(".")[2] for spelling in spellings}
    return {key(name) for name in names | {function.__name__ for function in COMPOSITIONS}}


@pytest.mark.skipif(
    not torch.__version__.startswith("2.13."), reason="other PyTorches have other operations"
)
def test_every_differentiated_operation_is_classified() -> None:
    differentiated, known = _differentiated(), _known()
    assert {"exp", "amax", "hardtanh"} < differentiated
    smooth = {name for names in _SMOOTH.values() for name in names.split()}

    def classified(name: str) -> bool:
        # Not asking for arguments, so that calls count which have neither kinks nor jumps.
        return key(name) in known or unseen_row(key(name), _unknown) is not None

    unknown = {n for n in differentiated - smooth if not _INTERNAL.search(n) and not classified(n)}
    assert sorted(unknown) == []


def _unknown(argument: str) -> str:
    return "max"


def test_what_is_smooth_is_nothing_else() -> None:
    smooth = {name for names in _SMOOTH.values() for name in names.split()}
    assert not {key(name) for name in smooth} & _known()
    assert not [name for name in smooth if unseen_row(key(name), _unknown)]
