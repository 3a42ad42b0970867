"""What each verb does: widen, deepen, cut, attach, freeze, init, cast."""

from __future__ import annotations

from tests.mutations.defect import Defect

GROW = "tests/verbs/test_grow.py"
DEEPER = (f"{GROW}::test_deeper_networks_compute_the_same_function",)
BLOCKS = (f"{GROW}::test_residual_and_transformer_blocks_begin_as_the_identity",)
BIRTH = (f"{GROW}::test_a_block_in_braces_must_be_the_identity_at_birth",)
WIDEN = "tests/verbs/test_widen_laws.py"
WIDENED = ("tests/axes/test_axes.py::test_widened_layers_compute_the_same_function_or_are_refused",)
LAWS = "tests/test_laws.py"
FREEZE = (f"{LAWS}::test_freeze_holds_under_any_training_loop",)
CUT = (f"{LAWS}::test_cut_gives_the_value_at_that_point",)
ATTACH = (f"{LAWS}::test_attach_keeps_earlier_outputs",)
CARRY = "tests/verbs/test_carry.py"
WORDS = (f"{CARRY}::test_words_find_their_rows_and_others_are_filled",)
TAKEN = (f"{CARRY}::test_what_is_taken_has_the_bits_and_the_rest_its_own",)
CAST = "tests/verbs/test_cast.py"
NEAREST = (f"{CAST}::test_rounding_is_to_nearest",)
INT8 = "tests/verbs/test_int8.py"
STEPS = (f"{INT8}::test_every_number_layer_and_output_stays_within_its_bound",)
STEP = ("tests/precision/test_rounding_laws.py",)

ADAPTERS = "tests/verbs/test_adapters.py"
DORA = (f"{ADAPTERS}::test_the_formula_of_dora",)
START = (f"{ADAPTERS}::test_the_start_and_the_merge",)
INPUT = "tests/verbs/test_adapt_input.py"
GREY = (f"{INPUT}::test_a_grey_image_is_the_grey_rgb_image",)
DARK = (f"{INPUT}::test_new_channels_change_nothing",)
TABLES = (f"{INPUT}::test_tables_follow_and_tokens_stay",)
FORMULAS = (f"{INPUT}::test_masks_and_indices_are_those_of_the_libraries",)

DEFECTS: tuple[Defect, ...] = (
    # --- adapters and inputs
    Defect(
        "the length of weights gets a gradient", "graph/layers.py",
        "factor = self.weight / self.lengths(W, A, B).detach()", "factor = self.weight / self.lengths(W, A, B)",
        "gradients are those of the paper", DORA,
    ),
    Defect(
        "lengths of the weight alone", "graph/layers.py",
        "whole = W + self.scale * product", "whole = W",
        "V is the weight and the product", DORA,
    ),
    Defect(
        "a merge leaves the bias as it was", "graph/adapters.py",
        'f"{path}.bias": layer.bias.detach().double() * factors', 'f"{path}.bias": layer.bias.detach().double()',
        "merged factors compute the same", START,
    ),
    Defect(
        "a grey channel is read by the first alone", "graph/input_channels.py",
        '"sum": lambda c, j: float(c % new == j),', '"sum": lambda c, j: float(c == j),',
        "a grey image is the grey RGB image", GREY,
    ),
    Defect(
        "a shift of each channel counts as nothing", "graph/input_channels.py",
        "    if len(node.all_input_nodes) != 1 or not", "    if not",
        "what has numbers for each channel is read behind a layer", GREY,
    ),
    Defect(
        "new channels are read", "graph/input_channels.py",
        '"zero": lambda c, j: float(c == j),\n        }[how]\n    return',
        '"zero": lambda c, j: 1.0,\n        }[how]\n    return',
        "new channels change nothing", DARK,
    ),
    Defect(
        "tables are cut, not interpolated", "axes/position_tables.py",
        "piece = stretched(piece, axis + i, n)", "piece = piece.repeat_interleave(n, axis + i).narrow(axis + i, 0, n)",
        "tables follow", TABLES,
    ),
    Defect(
        "windows are not shifted by half", "axes/position_tables.py",
        "row[n - w // 2 :] = 2", "row[n - w // 3 :] = 2",
        "masks are those of the library", FORMULAS,
    ),
    # --- widen
    Defect(
        "copies have equal shares", "verbs/widen.py",
        'raw = [1.0 if share == "equal" else rng.uniform(0.5, 1.5) for _ in index]', "raw = [1.0 for _ in index]",
        "copies differ after one step of training", (f"{WIDEN}::test_copies_are_told_apart_by_training",),
    ),
    Defect(
        "shares of copies do not add up", "verbs/widen.py",
        "return [weight / total[i] for i, weight in zip(index, raw, strict=True)]", "return raw",
        "widened layers compute the same", WIDENED,
    ),
    Defect(
        "every copy is of the first", "verbs/widen.py",
        "out += rng.sample(range(old), min(old, new - len(out)))", "out += [0] * min(old, new - len(out))",
        "each index is copied as equally often as can be", (f"{WIDEN}::test_indices_are_copied_equally_often",),
    ),
    Defect(
        "new rows are read", "verbs/widen.py",
        "return [1.0] * old + [0.0] * (len(index) - old)", "return [1.0] * len(index)",
        "widened layers compute the same", WIDENED,
    ),
    Defect(
        "new rows are copies", "verbs/widen.py",
        'if mode == "copy" and not noise:', "if not noise:",
        "with mode=zero the new rows are random", (f"{WIDEN}::test_new_rows_are_random",),
    ),
    # --- deepen
    Defect(
        "a BatchNorm that keeps its scale", "graph/blocks.py",
        "part.weight.copy_((part.running_var + part.eps).sqrt())", "part.weight.copy_(part.running_var.sqrt())",
        "deeper networks compute the same", (f"{GROW}::test_deeper_networks_compute_the_same_function",),
    ),
    Defect(
        "a BatchNorm that keeps its shift", "graph/blocks.py",
        "part.bias.copy_(part.running_mean)", "part.bias.copy_(part.running_mean + 0.1)",
        "deeper networks compute the same", DEEPER,
    ),
    Defect(
        "an activation is not repeated", "verbs/deepen.py",
        "idempotent = activation is None or isinstance(activation, IDEMPOTENT)", "idempotent = True",
        "deeper networks compute the same, or are refused", DEEPER,
    ),
    Defect(
        "a branch that adds something", "graph/surgery.py",
        "        start_as_nothing([m for m in made if list(m.parameters())][-1])\n", "        pass\n",
        "deeper networks compute the same", DEEPER,
    ),
    Defect(
        "the first scale of a block is zero", "graph/blocks.py",
        "zeroed += _last_tensors(branch, modules, path)", "zeroed += _last_tensors(branch, modules, path)[:1]",
        "blocks begin as the identity", BLOCKS,
    ),
    Defect(
        "an activation is already there", "verbs/deepen.py",
        "same = seen is not None and type(seen) is type(part)", "same = True",
        "a block in braces is the identity at birth", (f"{WIDEN}::test_an_activation_is_put_only_behind_itself",),
    ),
    # --- cut, attach, freeze
    Defect(
        "before is after", "verbs/cut.py",
        '"before" if self.before is not None else "after"', '"after"',
        "cut gives the value at that point", (f"{WIDEN}::test_a_cut_before_a_layer_gives_its_input",),
    ),
    Defect(
        "what should go and stays is not said", "verbs/cut.py",
        "            if surprise or spared:\n", "            if surprise:\n",
        "a cut drops what drops= says and no less", (f"{WIDEN}::test_a_cut_drops_what_is_said_and_no_less",),
    ),
    Defect(
        "a head in the place of the others", "graph/surgery.py",
        "    if present:\n        sole", "    if False:\n        sole",
        "earlier outputs are as before", ATTACH,
    ),
    Defect(
        "frozen norms follow train()", "graph/frozen.py",
        '        """Stay in eval mode, whatever `mode` says."""\n        super().train(False)\n'
        '        return self\n\n\nclass FrozenBatchNorm3d',
        '        """Stay in eval mode, whatever `mode` says."""\n        super().train(mode)\n'
        '        return self\n\n\nclass FrozenBatchNorm3d',
        "freeze holds under any training loop", FREEZE,
    ),
    Defect(
        "no norm is frozen", "verbs/freeze.py",
        'norms_in(network, owners) if self.bn == "eval" else ([], [])', "([], [])",
        "freeze holds under any training loop", FREEZE,
    ),
    # --- init
    Defect(
        "words that are missing are zero", "verbs/init.py",
        "vector = mean + spread * generator.standard_normal(table.shape[1])",
        "vector = spread * generator.standard_normal(table.shape[1])",
        "missing words have the mean and deviation of the others", (f"{WIDEN}::test_missing_words_are_drawn_like_the_others",),
    ),
    Defect(
        "words in capitals are missing", "verbs/init.py",
        "found.get(w, found.get(w.lower()))", "found.get(w)",
        "words find their rows", WORDS,
    ),
    Defect(
        "what is taken is nearly the source's", "verbs/init.py",
        "{t: source[s].detach().clone() for t, s in v.pairs.items()}",
        "{t: source[s].detach().clone() * 1.0000001 for t, s in v.pairs.items()}",
        "what is taken has the source's bits", TAKEN,
    ),
    # --- half precision and int8
    Defect(
        "the whole distance for half of it", "precision/rounding.py",
        "return float(torch.finfo(dtype).eps) / 2", "return float(torch.finfo(dtype).eps)",
        "rounding to nearest moves by at most the unit roundoff, and by that much", STEP,
    ),
    Defect(
        "subnormal numbers in whole steps", "precision/rounding.py",
        "below = float(gap[small].max()) / half if", "below = float(gap[small].max()) / (4 * half) if",
        "under the normal range a number moves by half the smallest one at most", STEP,
    ),
    Defect(
        "what becomes infinite is not counted", "precision/rounding.py",
        "out.overflow + int((torch.isfinite(w) & ~finite).sum())", "out.overflow",
        "overflow is counted", STEP,
    ),
    Defect(
        "what becomes zero is not counted", "precision/rounding.py",
        "out.zeroed + int((small & (size > 0) & (r == 0)).sum())", "out.zeroed + int((small & (r == 0)).sum())",
        "zeros that were there are not counted", STEP,
    ),
    Defect(
        "nothing moves when outputs are bounded", "precision/rounding.py",
        "return tensor + width * (2 * torch.rand(", "return tensor + 0 * width * (2 * torch.rand(",
        "outputs stay within the bound", (f"{CAST}::test_outputs_stay_within_the_bound",),
    ),
    Defect(
        "a quarter of a step for half of one", "precision/int8.py",
        "return 0.5 * float(scale.double().norm())", "return 0.25 * float(scale.double().norm())",
        "a layer moves by half a step in every number at most", (f"{STEP[0]}::test_int8_moves_by_half_a_step_at_most",),
    ),
    Defect(
        "half steps in whole ones", "precision/int8.py",
        "abs() / (0.5 * scale.double()[:, None])", "abs() / scale.double()[:, None]",
        "a number off by one breaks the claim", (f"{STEP[0]}::test_int8_moves_by_half_a_step_at_most",),
    ),
    Defect(
        "int8 moves to one side", "precision/int8.py",
        "draw = torch.rand(old.shape, generator=noise, dtype=torch.float64) - 0.5",
        "draw = 0.01 * torch.rand(old.shape, generator=noise, dtype=torch.float64)",
        "outputs stay within the bound", STEPS,
    ),
)  # fmt: skip
