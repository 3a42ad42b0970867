"""Scores, curvature, what goes first, compensation, the masked twin."""

from __future__ import annotations

from tests.mutations.defect import Defect

SCORES = "tests/pruning/test_score_laws.py"
CURVATURE = "tests/pruning/test_curvature.py"
PREDICTION = "tests/pruning/test_prediction.py"
CHOICE = "tests/pruning/test_choice_laws.py"
COMPENSATION = "tests/pruning/test_compensation.py"
TWIN = "tests/pruning/test_masked_twin.py"

MAGNITUDE = (f"{SCORES}::test_magnitude_is_the_norm_of_the_weights_that_produce",)
BN = (f"{SCORES}::test_bn_scale_is_the_size_of_gamma",)
TAYLOR = (f"{SCORES}::test_taylor_is_the_mean_size_of_activation_times_gradient",)
FISHER = (f"{SCORES}::test_the_fisher_diagonal_is_the_mean_square_of_gradients_under_the_networks_own_labels",)
OBD = (f"{SCORES}::test_obd_is_half_the_curvature_of_a_gate_and_predicts_with_the_first_order",)
LOWEST = (f"{SCORES}::test_what_goes_first_is_what_scores_lowest",)
NORMALISED = (f"{SCORES}::test_scores_are_compared_after_they_are_normalised",)
EACH = (f"{PREDICTION}::test_each_sample_has_the_change_that_double_backward_gives",)
DRAWN = (f"{PREDICTION}::test_the_first_order_alone_and_draws_have_it_too_and_exact_says_nothing",)
SPREAD = (f"{PREDICTION}::test_the_error_is_that_of_a_mean",)
DOUBLE = (f"{CURVATURE}::test_backward_passes_equal_double_backward_on_piecewise_linear_networks",)
SECOND = (f"{CURVATURE}::test_gate_saliency_is_the_second_difference_of_the_loss",)
STRAIGHT = (f"{CURVATURE}::test_where_gauss_newton_is_said_to_be_exact_it_is_and_elsewhere_not",)
ACTIVITY = (f"{CURVATURE}::test_activity_counts_what_the_readers_see",)
FLOORS = (f"{CHOICE}::test_a_share_of_every_axis_and_never_below_the_floor",)
STATISTICS = (f"{TWIN}::test_every_statistic_is_taken_over_what_remains",)
ATTENTION = (f"{TWIN}::test_attention_over_channels",)
REMOVAL = (f"{TWIN}::test_removal_is_masking",)
SEVERAL = ("tests/pruning/test_several_readers.py",)
CHANGE = ("tests/pruning/test_loss_change.py",)

ALONG = ("tests/pruning/test_along.py::test_the_other_axes_keep_their_sizes",)

DEFECTS: tuple[Defect, ...] = (
    Defect(
        "every free axis goes along", "pruning/removal.py",
        "chosen = [a for a in chosen if along is None or kind_of(network, a.atom) == along]", "chosen = list(chosen)",
        "the other axes keep their sizes", ALONG,
    ),
    Defect(
        "an activation written out is a residual sum", "axes/kinds.py",
        "if len(sides) == 2 and layers[sides[0]] != layers[sides[1]]:", "if len(sides) == 2:",
        "the inner width of dense layers is no residual stream", ALONG,
    ),
    # --- scores
    Defect(
        "magnitude of the wrong power", "pruning/scores.py",
        "values, missing = _per_index(network, each, least=2, power=power)",
        "values, missing = _per_index(network, each, least=2, power=3 - power)",
        "magnitude is the norm that it is named after", MAGNITUDE,
    ),
    Defect(
        "magnitude with its sign turned", "pruning/scores.py",
        'return Scores(values, missing, f"L{power} norm',
        'return Scores({a: -v for a, v in values.items()}, missing, f"L{power} norm',
        "magnitude is the norm that it is named after", MAGNITUDE,
    ),
    Defect(
        "bn-scale without its sign taken off", "pruning/scores.py",
        "part.weight.detach().double().abs()", "part.weight.detach().double()",
        "bn-scale is |γ|", BN,
    ),
    Defect(
        "bn-scale with its sign turned", "pruning/scores.py",
        "part.weight.detach().double().abs()", "-part.weight.detach().double().abs()",
        "bn-scale is |γ|", BN,
    ),
    Defect(
        "taylor with its sign turned", "pruning/scores.py",
        "        found.taylor,\n", "        {a: -t for a, t in found.taylor.items()},\n",
        "taylor is E|a · ∂ℓ/∂a|", TAYLOR,
    ),
    Defect(
        "taylor takes the size of the mean", "pruning/curvature.py",
        "sums.taylor += slope.abs().sum(0)", "sums.taylor += slope.sum(0).abs()",
        "taylor is E|a · ∂ℓ/∂a|", TAYLOR,
    ),
    Defect(
        "Fisher of gradients, not of their squares", "pruning/scores.py",
        "found = slope.detach().double().square().sum(0)", "found = slope.detach().double().sum(0)",
        "the Fisher diagonal is a mean of squares", FISHER,
    ),
    Defect(
        "Fisher at the likeliest label", "pruning/loss.py",
        "label = torch.multinomial(p.reshape(-1, width), 1, generator=rng)[:, 0].reshape(p.shape[:-1])", "label = p.argmax(-1)",
        "labels are drawn from the network's own p", FISHER,
    ),
    Defect(
        "the sign of the predicted first order", "pruning/scores.py",
        "total = {a: found.first[a] + s for a, s in found.second.items()}",
        "total = {a: s - found.first[a] for a, s in found.second.items()}",
        "the prediction is first plus second order", OBD,
    ),
    Defect(
        "zeros are counted where there are none", "pruning/scores.py",
        'held["zeros"] += (rows == 0).sum(1)', 'held["zeros"] += (rows != 0).sum(1)',
        "activity is what the readers see", ACTIVITY,
    ),
    # --- curvature
    Defect(
        "Gauss–Newton without the mean taken off", "pruning/curvature.py",
        '(square - (mean * mean if loss == "cross_entropy" else 0.0))', "square",
        "s is half a variance over the classes", OBD,
    ),
    Defect(
        "curvature without its half", "pruning/curvature.py",
        "own = 0.5 * weight", "own = 1.0 * weight",
        "s is half the second derivative", OBD,
    ),
    Defect(
        "the exact curvature without its half", "pruning/curvature.py",
        "sums[atom].second += 0.5 * n * second", "sums[atom].second += n * second",
        "Gauss–Newton is double backward where all is piecewise linear", DOUBLE,
    ),
    Defect(
        "the first order has the slope's sign", "pruning/curvature.py",
        "sums.first -= slope.sum(0)", "sums.first += slope.sum(0)",
        "f is minus the first derivative", OBD,
    ),
    Defect(
        "draws are added up", "pruning/curvature.py",
        'drawn = n * draws if chosen == "monte-carlo" else n', "drawn = n",
        "drawing is right in expectation, for any number of draws", DRAWN,
    ),
    Defect(
        "the last reader alone counts", "pruning/backward.py",
        "base = torch.zeros((self.count, atom.size), dtype=torch.float64) if held is None else held",
        "base = torch.zeros((self.count, atom.size), dtype=torch.float64)",
        "v is summed over all readers", SEVERAL,
    ),
    Defect(
        "the error of one sample for that of the mean", "pruning/spread.py",
        "return (float(squares) / (n - 1) / n) ** 0.5", "return (float(squares) / (n - 1)) ** 0.5",
        "the error is that of a mean", SPREAD,
    ),
    Defect(
        "a second reading goes unnoticed", "pruning/exactness.py",
        'return "it is read again behind itself"', "pass",
        "where Gauss–Newton is said to be exact it is", SEVERAL,
    ),
    Defect(
        "something over the value counts as linear", "pruning/exactness.py",
        "return False  # something over the value", "return True",
        "where Gauss–Newton is said to be exact it is", STRAIGHT,
    ),
    # --- choice
    Defect(
        "highest score goes first", "pruning/ranking.py",
        "key=lambda i, v=values: (v[i], i)", "key=lambda i, v=values: (-v[i], i)",
        "what scores lowest goes first", LOWEST,
    ),
    Defect(
        "normalise is ignored", "pruning/ranking.py",
        "return value if value > 0 else 1.0", "return 1.0",
        "scores are compared after they are normalised", NORMALISED,
    ),
    Defect(
        "floors are not kept", "pruning/ranking.py",
        "[: atom.size - self.floor(atom)]", "[: atom.size]",
        "so many indices stay at least", FLOORS,
    ),
    Defect(
        "a share of every axis is rounded up", "pruning/ranking.py",
        "math.floor(share * a.size + 1e-9)", "math.ceil(share * a.size + 1e-9)",
        "at most that share of every axis goes", FLOORS,
    ),
    Defect(
        "what is left is rounded down to a multiple", "pruning/ranking.py",
        "-(-left // self.multiple) * self.multiple", "left // self.multiple * self.multiple",
        "no more goes than was chosen", (f"{CHOICE}::test_what_is_left_is_a_multiple_and_no_more_goes_than_was_chosen",),
    ),
    Defect(
        "axes that must stay equal do not", "pruning/ranking.py",
        "most = min((len(out.get(a, ())) for a in group), default=0)",
        "most = max((len(out.get(a, ())) for a in group), default=0)",
        "axes of one stated size keep equal numbers", (f"{CHOICE}::test_axes_of_one_size_lose_equally_many",),
    ),
    Defect(
        "bisection stops early", "pruning/ranking.py",
        "while high - low > 1:", "while high - low > 2:",
        "no smaller removal fits the budget", (f"{CHOICE}::test_a_budget_is_met_by_the_smallest_removal",),
    ),
    Defect(
        "two of four are the largest", "pruning/unstructured.py",
        "low = four.argsort(dim=-1, stable=True)[..., :2]", "low = four.argsort(dim=-1, stable=True)[..., 2:]",
        "the two lowest of four go", (f"{CHOICE}::test_single_weights_go_from_the_lowest",),
    ),
    Defect(
        "single weights go from the top", "pruning/unstructured.py",
        "out[torch.argsort(flat, stable=True)[", "out[torch.argsort(-flat, stable=True)[",
        "the lowest weights go", (f"{CHOICE}::test_single_weights_go_from_the_lowest",),
    ),
    # --- compensation
    Defect(
        "folded is what stays", "pruning/compensate.py",
        "torch.where(reader.gone, mean, torch.zeros_like(mean))", "torch.where(reader.gone, torch.zeros_like(mean), mean)",
        "the bias takes the mean of what went", (f"{COMPENSATION}::test_the_fold_is_the_mean_of_what_went",),
    ),
    Defect(
        "refit is not centred", "pruning/compensate.py",
        "covariance = second[path] / rows[path] - torch.outer(mean, mean)", "covariance = second[path] / rows[path]",
        "a refit is a least-squares fit with a bias", (f"{COMPENSATION}::test_a_refit_is_least_squares_with_a_bias",),
    ),
    Defect(
        "refit forgets the mean of what stays", "pruning/compensate.py",
        "+ flat @ mean - fitted @ mean[stay]", "+ flat @ mean - flat[:, stay] @ mean[stay]",
        "a refit is a least-squares fit with a bias", (f"{COMPENSATION}::test_a_refit_is_least_squares_with_a_bias",),
    ),
    # --- the masked twin
    Defect(
        "LayerNorm's statistics over what went as well", "pruning/masked_ops.py",
        "share = mask / mask.sum()", "share = mask / mask.numel()",
        "statistics are taken over what remains", STATISTICS,
    ),
    Defect(
        "a mean over what went as well", "pruning/masked_ops.py",
        " * (mask.numel() / mask.sum())", "",
        "statistics are taken over what remains", STATISTICS,
    ),
    Defect(
        "a softmax in which zeros stand", "pruning/masked_ops.py",
        'return _filled(node, module, keeps, over, float("-inf"))', "return _filled(node, module, keeps, over, 0.0)",
        "statistics are taken over what remains", (TWIN,),
    ),
    Defect(
        "only what all axes lose is masked", "pruning/gates.py",
        "gone |= away[gate.index(atom)]", "gone = away[gate.index(atom)]",
        "removal is masking", (TWIN, CURVATURE),
    ),
    Defect(
        "GRU with its update turned round", "pruning/inner.py",
        "h = (1 - z) * (n + (r + own_r).sigmoid() * own_n).tanh() + z * h",
        "h = z * (n + (r + own_r).sigmoid() * own_n).tanh() + (1 - z) * h",
        "step by step a recurrent layer computes the same",
        ("tests/pruning/test_inner.py::test_step_by_step_a_recurrent_layer_computes_the_same",),
    ),
    # --- predicted and measured
    Defect(
        "the sign of the predicted change", "pruning/iterative.py",
        "state.predicted += float(seen.predicted[atom][index].sum())",
        "state.predicted -= float(seen.predicted[atom][index].sum())",
        "a small removal changes the loss as predicted", CHANGE,
    ),
    Defect(
        "the sign of the measured change", "compiler/claims/lossy.py",
        "math.inf, new[0] - old[0], bool", "math.inf, old[0] - new[0], bool",
        "the change is the loss behind minus the loss before", CHANGE,
    ),
    Defect(
        "the sign of the change on new samples", "compiler/claims/lossy.py",
        "after_others[0] - others[0], others[2]", "others[0] - after_others[0], others[2]",
        "the change is the loss behind minus the loss before", CHANGE,
    ),
)  # fmt: skip
