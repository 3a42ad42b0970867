"""Factorization: allocation, ranks, geometry, bounds of layers and of whole networks, what data says."""

from __future__ import annotations

from tests.mutations.defect import Defect

ALLOCATE = ("tests/factorization/test_allocate.py",)
GEOMETRY = "tests/factorization/test_geometry_laws.py"
TIGHT = ("tests/factorization/test_worst_case_tight.py",)
WORST = ("tests/factorization/test_worst_case.py",)
RANKS = ("tests/factorization/test_ranks.py::test_ranks_as_they_are_written",)
TABLES = "tests/factorization/test_table_laws.py"
FACTORIZE = "tests/verbs/test_factorize.py"
BOUND = (f"{FACTORIZE}::test_no_input_changes_by_more_than_the_bound",)
FULL = (f"{FACTORIZE}::test_at_full_rank_every_form_is_the_layer",)
DATA = (f"{FACTORIZE}::test_data_makes_the_output_error_smaller_and_the_bias_takes_the_mean",)

DEFECTS: tuple[Defect, ...] = (
    # --- allocation
    Defect(
        "the budget in differences of floats", "factorization/allocate.py",
        "if i == k[0] or _affordable(groups, cheapest, g, i, budget)",
        "if i == k[0] or groups[g][i].cost - groups[g][k[0]].cost < budget - least",
        "what just fits is not lost", ALLOCATE,
    ),
    Defect(
        "the solver's word for the budget", "factorization/allocate.py",
        "if _sum(groups, chosen)[0] <= budget:\n            start = chosen", "if True:\n            start = chosen",
        "the budget holds in exact sums", ALLOCATE,
    ),
    Defect(
        "dominated options stay, better ones go", "factorization/allocate.py",
        "if not kept or group[i].loss < group[kept[-1]].loss:", "if not kept or group[i].loss > group[kept[-1]].loss:",
        "as good as trying everything", ALLOCATE,
    ),
    Defect(
        "the bound of an allocation is what was found", "factorization/allocate.py",
        "bound = min(bound, total_loss)", "bound = total_loss + 1e-3",
        "no choice within the budget is below the bound", ALLOCATE,
    ),
    # --- ranks and tables
    Defect(
        "all is one", "factorization/rank_selection.py",
        "shares = [r < 1 or (r == 1 and isinstance(r, Rank) and r.share) for r in wanted]", "shares = [r < 1 for r in wanted]",
        "1.0 and 100% are all, 1 is one", RANKS,
    ),
    Defect(
        "the error at a rank is that of the next", "factorization/rank_curves.py",
        "total[:-1] += np.cumsum(padded[::-1])[::-1]", "total[1:] += np.cumsum(padded[::-1])[::-1]",
        "a table's error is that of the truncation", (f"{TABLES}::test_the_error_of_a_table_is_that_of_the_truncation",),
    ),
    Defect(
        "an error as a square", "factorization/rank_curves.py",
        "limit = relative * relative", "limit = relative",
        "the smallest rank within an error", (f"{TABLES}::test_the_smallest_rank_within_an_error_is_the_smallest",),
    ),
    Defect(
        "a rank is rounded down", "factorization/rank_curves.py",
        "up = math.ceil(rank - 1e-9)", "up = math.floor(rank - 1e-9)",
        "a rank is rounded up to a multiple", (f"{TABLES}::test_ranks_are_rounded_up_to_a_multiple",),
    ),
    # --- geometry
    Defect(
        "dilation is not counted", "factorization/geometry.py",
        "out.append((n + pad - d * (k - 1) - 1) // s + 1)", "out.append((n + pad - k) // s + 1)",
        "a layer's output has the size that torch gives", (f"{GEOMETRY}::test_sizes_are_those_of_torch",),
    ),
    Defect(
        "what a transposed convolution adds is left out", "factorization/geometry.py",
        "pad + d * (k - 1) + g.output_padding[i] + 1)", "pad + d * (k - 1) + 1)",
        "a layer's output has the size that torch gives", (f"{GEOMETRY}::test_sizes_are_those_of_torch",),
    ),
    Defect(
        "the work of a transposed convolution at its outputs", "factorization/geometry.py",
        "where = size if g.transposed else moves(g, size)", "where = moves(g, size)",
        "MACs are those that torch counts", (f"{GEOMETRY}::test_costs_are_those_that_torch_counts",),
    ),
    Defect(
        "biases cost nothing", "factorization/geometry.py",
        "+ (self.outputs if self.bias else 0)", "",
        "parameters are those of the layer", (f"{GEOMETRY}::test_costs_are_those_that_torch_counts",),
    ),
    Defect(
        "groups of a transposed kernel in the wrong order", "factorization/geometry.py",
        "weight.detach().reshape(g.groups, g.columns, g.rows, *g.kernel).transpose(1, 2)",
        "weight.detach().reshape(g.groups, g.rows, g.columns, *g.kernel)",
        "at full rank every form is the layer", FULL,
    ),
    # --- what is measured
    Defect(
        "kernels are added", "factorization/difference.py",
        "return float((whole - rebuilt).norm()), float(whole.norm())",
        "return float((whole + rebuilt).norm()), float(whole.norm())",
        "the error is ‖K − K̂‖", BOUND,
    ),
    Defect(
        "an attack that does not climb", "factorization/difference.py",
        "x = _unit(held.T @ gap - back, x)", "x = _start((held.shape[1],), seed).to(held.dtype)",
        "power iteration comes near the norm of the difference", (f"{GEOMETRY}::test_the_worst_input_comes_near_the_norm",),
    ),
    Defect(
        "an attack on the sum", "factorization/difference.py",
        "E = old_OI - new_OI", "E = old_OI + new_OI",
        "power iteration comes near the norm of the difference", (f"{GEOMETRY}::test_the_worst_input_comes_near_the_norm",),
    ),
    Defect(
        "a covariance that is not centred", "factorization/output_covariance.py",
        "return self.products_OO / max(self.count, 1) - torch.outer(mean, mean)",
        "return self.products_OO / max(self.count, 1)",
        "the covariance is numpy's", (f"{GEOMETRY}::test_what_is_seen_of_outputs_is_numpys",),
    ),
    Defect(
        "slopes with their sign", "factorization/output_covariance.py",
        "found[path].slope_sum += float(gradient.double().square().sum())",
        "found[path].slope_sum += float(gradient.double().sum())",
        "the slope is a mean of squares", (f"{GEOMETRY}::test_what_is_seen_of_outputs_is_numpys",),
    ),
    Defect(
        "the mean error is taken off twice", "factorization/factorize.py",
        "held[name].double() + gap.mean_O if name in held else gap.mean_O",
        "held[name].double() - gap.mean_O if name in held else -gap.mean_O",
        "the bias takes the mean error", DATA,
    ),
    Defect(
        "taps count once each", "factorization/factorized_layer.py",
        "return max(sum(w * float(", "return max(max(w * float(",
        "no input changes by more than the bound", (*BOUND, *WORST),
    ),
    Defect(
        "padding that copies is padding with zeros", "factorization/factorized_layer.py",
        'if g.transposed or g.padding_mode == "zeros":\n        return [1] * k', "if True:\n        return [1] * k",
        "no input changes by more than the bound", (f"{GEOMETRY}::test_padding_that_copies_is_counted",),
    ),
    # --- the worst case of a network
    Defect(
        "the worst case is a tenth", "factorization/worst_case.py",
        "return math.hypot(*(v.gap for v in self._several(node, node.args[0]))) * (1 + 1e-9)",
        "return math.hypot(*(v.gap for v in self._several(node, node.args[0]))) * 0.1",
        "no attack exceeds the worst case", WORST,
    ),
    Defect(
        "what a layer's own change does is left out", "factorization/worst_case.py",
        "return _Value(moved.norm, moved.gap + error * x.norm + shift * where)",
        "return _Value(moved.norm, moved.gap + shift * where)",
        "no attack exceeds the worst case", WORST,
    ),
    Defect(
        "alpha is left out", "factorization/worst_case.py",
        "return _Value(a.norm + abs(alpha) * b.norm, a.gap + abs(alpha) * b.gap)",
        "return _Value(a.norm + b.norm, a.gap + b.gap)",
        "no input exceeds the worst case", TIGHT,
    ),
    Defect(
        "constants weigh nothing", "factorization/worst_case.py",
        "return _Value(abs(given) * math.sqrt(count), 0.0)", "return _Value(0.0, 0.0)",
        "no input exceeds the worst case", TIGHT,
    ),
    Defect(
        "every function maps 0 to 0", "factorization/worst_case.py",
        "return x.times(slope, zero * math.sqrt(count))", "return x.times(slope)",
        "no input exceeds the worst case", TIGHT,
    ),
    Defect(
        "pooling reads every pixel once", "factorization/worst_case.py",
        "return x.times(self._pool(node, cast(Any, part), shape, out))", "return x.times(1.0)",
        "no attack exceeds the worst case", (f"{GEOMETRY}::test_windows_that_overlap_are_counted",),
    ),
)  # fmt: skip
