"""Gram matrices, singular values, Krylov spaces, norms of operators, CP, Tucker, tensor trains."""

from __future__ import annotations

from tests.mutations.defect import Defect

SVD = "tests/linalg/test_svd.py"
NORMS = "tests/linalg/test_operator_norms.py"
TENSOR = "tests/linalg/test_tensor.py"
BASICS = "tests/linalg/test_gram_laws.py"
BOUNDS = "tests/factorization/test_bounds.py"

TAIL = (f"{SVD}::test_the_error_is_the_spectral_tail",)
BALANCED = (f"{SVD}::test_errors_fall_with_the_rank_and_factors_are_balanced",)
CERTIFICATE = (f"{SVD}::test_a_certificate_is_never_above_the_truth",)
SPECTRUM = (f"{SVD}::test_spectrum_and_tails_agree",)
MOMENTS = (f"{SVD}::test_moments_bound_the_sum_of_the_largest_eigenvalues",)
VBMF = (f"{SVD}::test_vbmf_finds_a_planted_rank",)
DIFFERENCE = (f"{BOUNDS}::test_the_norm_of_a_difference_is_bounded_closely",)
CUT = (f"{BOUNDS}::test_the_gain_of_a_cut_is_at_most_root_of_tail_and_excess",)
WORST = (f"{NORMS}::test_bounds_hold_against_the_worst_input_found",)
TUCKER = (f"{TENSOR}::test_tucker_lies_within_its_bounds",)
TRAINS = (f"{TENSOR}::test_trains_lie_within_their_bounds",)
CP = (f"{TENSOR}::test_cp_says_what_its_factors_are", f"{TENSOR}::test_cp_finds_a_planted_sum")

DEFECTS: tuple[Defect, ...] = (
    # --- Gram matrices
    Defect(
        "chunks of a Gram matrix overlap", "linalg/gram.py",
        "part = A_MN[:, start : start + step].double()\n        out_MM",
        "part = A_MN[:, start : start + step + 1].double()\n        out_MM",
        "the Gram matrix is A Aᵀ", (f"{BASICS}::test_the_gram_matrix_is_the_product",),
    ),
    Defect(
        "the square of the norm for the norm", "linalg/gram.py",
        "return total**0.5\n    scale", "return total\n    scale",
        "the Frobenius norm is that of numpy", (f"{BASICS}::test_norms_and_distances_are_numpys",),
    ),
    Defect(
        "small numbers are not scaled first", "linalg/gram.py",
        "if 1e-240 < total < 1e240:", "if True:",
        "the Frobenius norm is that of numpy, at any scale", (f"{BASICS}::test_norms_and_distances_are_numpys",),
    ),
    Defect(
        "the distance is that of a sum", "linalg/gram.py",
        "alpha=-1).reshape(-1)", "alpha=1).reshape(-1)",
        "‖A − U V‖ is that of numpy", (f"{BASICS}::test_norms_and_distances_are_numpys",),
    ),
    Defect(
        "singular vectors from the small end", "linalg/gram.py",
        "return values.flip(0).clamp_min(0.0), vectors.flip(1)", "return values.flip(0).clamp_min(0.0), vectors",
        "the leading vectors span what numpy's do", (f"{BASICS}::test_leading_vectors_span_what_numpys_do",),
    ),
    Defect(
        "signs as they come", "linalg/gram.py",
        "return torch.where(largest < 0, -1.0, 1.0)", "return torch.where(largest < 0, 1.0, 1.0)",
        "the largest entry of each column is positive", BALANCED,
    ),
    Defect(
        "threads stay as they were put", "linalg/gram.py",
        "        torch.set_num_threads(before)\n", "        pass\n",
        "the number of threads is the caller's afterwards", (f"{BASICS}::test_the_number_of_threads_is_the_callers",),
    ),
    # --- singular values
    Defect(
        "tails from the wrong end", "linalg/svd.py",
        "sums = squares.flip(0).cumsum(0).flip(0)", "sums = squares.cumsum(0)",
        "tails[r] is the error of the best rank r", SPECTRUM,
    ),
    Defect(
        "factors carry their values unevenly", "linalg/svd.py",
        "share = torch.where((left > 0) & (right > 0), (right / left.clamp_min(1e-300)).sqrt(), 0.0) * flip",
        "share = torch.where((left > 0) & (right > 0), (right / left.clamp_min(1e-300)), 0.0) * flip",
        "the error is the spectral tail", TAIL,
    ),
    Defect(
        "the small directions of a Gram matrix are trusted", "linalg/svd.py",
        "tail < GRAM_FLOOR * total", "tail < 0",
        "the error is the spectral tail, also far below", TAIL,
    ),
    Defect(
        "a cut states the tail and forgets the excess", "linalg/svd.py",
        "first = tail + max(0.0, found.error**2 - float(self.squares[rank:].sum()))", "first = tail",
        "the gain is at most √(tail² + error² − best²)", CUT,
    ),
    Defect(
        "a cut adds the excess to the tail", "linalg/svd.py",
        "first = tail + max(0.0, found.error**2 - float(self.squares[rank:].sum()))",
        "first = (tail**0.5 + max(0.0, found.error - float(self.squares[rank:].sum()) ** 0.5)) ** 2",
        "the gain is at most √(tail² + error² − best²)", CUT,
    ),
    Defect(
        "noise stands out", "linalg/svd.py",
        "return int((s > M * best * x_bar).sum())", "return int((s > M * best).sum())",
        "a planted rank is found", VBMF,
    ),
    # --- Krylov
    Defect(
        "the residuals of Ritz vectors are left out", "linalg/krylov.py",
        "return float((raised + self.residual_K[kept - 1] / t_T).min())", "return float(raised.min())",
        "a certificate is never above the truth", CERTIFICATE,
    ),
    Defect(
        "Ky Fan without what is raised", "linalg/krylov.py",
        "return float((raised + self.residual_K[kept - 1] / t_T).min())",
        "return float((self.residual_K[kept - 1] / t_T).min())",
        "a certificate is never above the truth", (f"{BASICS}::test_the_excess_bounds_the_sum_of_the_largest_eigenvalues",),
    ),
    Defect(
        "the largest Ritz value for the largest eigenvalue", "linalg/krylov.py",
        "least = min(least, xi * (1 + sinh(reach / (2 * q - 1)) ** 2))\n", "least = min(least, xi * 0.98)\n",
        "the norm of a difference is bounded from above", DIFFERENCE,
    ),
    Defect(
        "moments without the trace", "linalg/moments.py",
        "best = min(best, L * (rank * level / LEVELS + trace))", "best = min(best, L * (rank * level / LEVELS))",
        "the sum of the largest eigenvalues is bounded from above", MOMENTS,
    ),
    # --- norms of operators
    Defect(
        "a grid that holds the input alone", "linalg/operator_norms.py",
        "return dealt, length + taps - 1", "return dealt, length",
        "the circular embedding lies above every input", WORST,
    ),
    Defect(
        "copies of im2col count once", "linalg/operator_norms.py",
        "return sqrt(copies) * max(", "return 1.0 * max(",
        "im2col lies above every input", WORST,
    ),
    Defect(
        "copies regardless of common factors", "linalg/operator_norms.py",
        "(s[axis] // gcd(s[axis], d[axis]))", "s[axis]",
        "im2col lies above every input", WORST,
    ),
    Defect(
        "the smallest group for the largest", "linalg/operator_norms.py",
        "* max(spectral_norm(part.reshape(part.shape[0], -1)) for part in K.chunk(groups))",
        "* min(spectral_norm(part.reshape(part.shape[0], -1)) for part in K.chunk(groups))",
        "the norm of groups is the largest of theirs", WORST,
    ),
    Defect(
        "one phase of a stride is left out", "linalg/operator_norms.py",
        "length = (p + n - 1) // s - p // s + 1", "length = (p + n - 1) // s - p // s",
        "the circular embedding lies above every input", (NORMS,),
    ),
    # --- tensors
    Defect(
        "one unfolding twice", "linalg/tensor.py",
        "inputs = gram(K_OIS.transpose(0, 1).reshape(K.shape[1], -1))", "inputs = gram(K_OIS.reshape(K.shape[1], -1))",
        "a Tucker form lies within its two tails", TUCKER,
    ),
    Defect(
        "a sweep that turns away", "linalg/tensor.py",
        "out_MR = torch.linalg.qr(A_MN @ (A_MN.mT @ out_MR))[0]",
        "out_MR = torch.linalg.qr(torch.linalg.solve(A_MN @ A_MN.mT + torch.eye(len(A_MN)).to(A_MN), out_MR))[0]",
        "a sweep never makes it worse", TUCKER,
    ),
    Defect(
        "the rank of the other end", "linalg/tensor.py",
        "rank = max(1, min(wanted[last - 1], *rest.shape))", "rank = max(1, min(wanted[first], *rest.shape))",
        "each cut of a train has the rank that was asked for", (f"{BASICS}::test_a_train_has_the_ranks_that_were_asked_for",),
    ),
    Defect(
        "a train that is projected twice", "linalg/tensor.py",
        "rest, left, first = U.to(rest.dtype).mT @ rest, rank, first + 1",
        "rest, left, first = 0.5 * (U.to(rest.dtype).mT @ rest), rank, first + 1",
        "a train lies within the tails of its unfoldings", TRAINS,
    ),
    Defect(
        "inputs before outputs", "linalg/tensor.py",
        "pairs = [axis for k in range(d) for axis in (k, d + k)]", "pairs = [axis for k in range(d) for axis in (d + k, k)]",
        "a matrix train is the matrix", (f"{TENSOR}::test_a_matrix_train_is_the_matrix",),
    ),
    Defect(
        "prime factors go to the largest mode", "linalg/tensor.py",
        "smallest = modes.index(min(modes))", "smallest = modes.index(max(modes))",
        "modes are as equal as can be", (f"{BASICS}::test_modes_are_near_each_other",),
    ),
    Defect(
        "CP at the scale of its terms", "linalg/cp.py",
        "size = (norms.prod(dim=0) * scale) ** (1 / len(factors))", "size = norms.prod(dim=0) ** (1 / len(factors))",
        "CP says what its factors are", CP,
    ),
    Defect(
        "CP folds the mode that it solves for", "linalg/cp.py",
        "        if axis != mode:\n", "        if axis == mode:\n",
        "CP finds a planted sum", CP,
    ),
    Defect(
        "degeneracy of the kernel, not of its terms", "linalg/cp.py",
        "terms / square**0.5 if square > 0 else 1.0", "1.0",
        "degeneracy is the size of the terms over that of their sum",
        (f"{BASICS}::test_degeneracy_is_the_size_of_the_terms_over_that_of_their_sum",),
    ),
)  # fmt: skip
