"""Losses, mixup, augmentation, the loop, checkpoints, metrics, seeds."""

from __future__ import annotations

from tests.mutations.defect import Defect

SOFT = "tests/training/test_soft.py"
SCALED = (f"{SOFT}::test_the_loss_is_summed_over_classes_averaged_over_samples_and_scaled",)
MEANS = (f"{SOFT}::test_means_of_teachers",)
SEQUENCES = (f"{SOFT}::test_sequences_are_rows",)
CLASSES = (f"{SOFT}::test_classes_are_where_the_hard_loss_has_them",)
AT_TEACHER = (f"{SOFT}::test_no_loss_and_no_gradient_at_the_teacher_up_to_a_constant",)
VALUES = (f"{SOFT}::test_values_are_measured_as_values",)
OBJECTIVE = "tests/training/test_objective_laws.py"
LOOP = "tests/training/test_loop_laws.py"
FIT = "tests/training/test_fit.py"
RESUME = (f"{LOOP}::test_a_run_that_goes_on_ends_where_it_would_have_ended",)

DEFECTS: tuple[Defect, ...] = (
    # --- losses
    Defect(
        "no T²", "training/soft.py",
        "return temperature**2 * F.kl_div(log_q, log_p, reduction=\"batchmean\", log_target=True)",
        "return F.kl_div(log_q, log_p, reduction=\"batchmean\", log_target=True)",
        "the soft loss is scaled by T²", SCALED,
    ),
    Defect(
        "the mean over all elements", "training/soft.py",
        "return temperature**2 * F.kl_div(log_q, log_p, reduction=\"batchmean\", log_target=True)",
        "return temperature**2 * F.kl_div(log_q, log_p, reduction=\"mean\", log_target=True)",
        "the soft loss is summed over classes", SCALED,
    ),
    Defect(
        "an arithmetic mean of logits", "training/soft.py",
        'if mean == "geometric":', "if True:",
        "an arithmetic mean is one of probabilities", MEANS,
    ),
    Defect(
        "the other classes weigh as much as the target", "training/soft.py",
        "alpha: float = 1.0, beta: float = 8.0", "alpha: float = 1.0, beta: float = 1.0",
        "decoupled: the other classes have a weight of their own", CLASSES,
    ),
    Defect(
        "relations within a sample alone", "training/soft.py",
        "(_unlike(q, p) + _unlike(q.T, p.T))", "(_unlike(q, p) + _unlike(q, p))",
        "relations within samples and within classes", (f"{OBJECTIVE}::test_relations_are_correlations_of_rows_and_columns",),
    ),
    Defect(
        "labels at full weight beside a teacher", "training/objective.py",
        "total = total if soft is None else soft.hard * total", "pass",
        "the loss is α · hard + (1 − α) · soft", (f"{OBJECTIVE}::test_labels_and_teachers_share_the_loss",),
    ),
    Defect(
        "the teacher at full weight beside labels", "training/objective.py",
        "total = (1 - soft.hard) * found", "total = found",
        "the loss is α · hard + (1 − α) · soft", (f"{OBJECTIVE}::test_labels_and_teachers_share_the_loss",),
    ),
    Defect(
        "mixup's share of the labels swapped", "training/objective.py",
        "total = view.share * total + (1 - view.share) * self.labels(output, view.other, others)",
        "total = (1 - view.share) * total + view.share * self.labels(output, view.other, others)",
        "labels are mixed as the inputs are", (f"{OBJECTIVE}::test_labels_are_mixed_as_the_inputs_are",),
    ),
    Defect(
        "mixup's share of the inputs swapped", "training/objective.py",
        "x = share * x + (1 - share) * more", "x = (1 - share) * x + share * more",
        "labels are mixed as the inputs are", (f"{OBJECTIVE}::test_labels_are_mixed_as_the_inputs_are",),
    ),
    Defect(
        "smoothed labels are not halved", "training/losses.py",
        "like(output, target) * (1 - smoothing) + smoothing / 2", "like(output, target) * (1 - smoothing) + smoothing",
        "smoothed labels are between chance and the label",
        (f"{OBJECTIVE}::test_smoothed_labels_lie_between_the_label_and_chance",),
    ),
    Defect(
        "smoothing is forgotten", "training/losses.py",
        "F.cross_entropy(scores, wanted, weights, label_smoothing=smooth, ignore_index=PADDING)",
        "F.cross_entropy(scores, wanted, weights, ignore_index=PADDING)",
        "smoothed labels are between chance and the label",
        (f"{OBJECTIVE}::test_smoothed_labels_lie_between_the_label_and_chance",),
    ),
    Defect(
        "smoothed where it is measured", "training/objective.py",
        "for term, loss in self.plain:", "for term, loss in self.terms:",
        "what is measured is not smoothed", (f"{OBJECTIVE}::test_smoothed_labels_lie_between_the_label_and_chance",),
    ),
    Defect(
        "heads weigh alike", "training/objective.py",
        "[v if t.weight == 1 else t.weight * v for", "[v for",
        "the loss is the weighted sum of the heads'", (f"{OBJECTIVE}::test_heads_are_summed_by_their_weights",),
    ),
    Defect(
        "penalties of the other norm", "training/objective.py",
        'direction = parameter.sign() if penalty.norm == "l1" else parameter',
        'direction = parameter if penalty.norm == "l1" else parameter.sign()',
        "penalties have the gradient that autograd finds", (f"{OBJECTIVE}::test_penalties_on_parameters_have_their_gradient",),
    ),
    # --- views
    Defect(
        "flipped where it should not be", "training/augment.py",
        "_column(draw() < share, x)", "_column(draw() >= share, x)",
        "so many of the images are flipped", (f"{LOOP}::test_augmentations_have_the_size_that_they_say",),
    ),
    Defect(
        "brighter alone", "training/augment.py",
        "_column(1 + amount * (2 * draw() - 1), x)", "_column(1 + amount * draw(), x)",
        "brightness is 1 ± the amount", (f"{LOOP}::test_augmentations_have_the_size_that_they_say",),
    ),
    Defect(
        "noise of another size", "training/augment.py",
        "return x + amount * draw.normal(*x.shape[1:]).to(x)", "return x + amount**2 * draw.normal(*x.shape[1:]).to(x)",
        "noise has the deviation that is stated", (f"{LOOP}::test_augmentations_have_the_size_that_they_say",),
    ),
    # --- metrics
    Defect(
        "padding counts as a row", "training/metrics.py",
        "kept = wanted != PADDING", "kept = wanted == wanted",
        "padding counts for nothing", SEQUENCES,
    ),
    Defect(
        "variance about zero", "training/metrics.py",
        'spread = sums["sum2"] - sums["sum"] ** 2 / n if n else 0.0', 'spread = sums["sum2"] if n else 0.0',
        "r2 is that of scikit-learn", (f"{LOOP}::test_metrics_over_batches_are_those_of_scikit_learn",),
    ),
    Defect(
        "metrics of the last batch", "training/metrics.py",
        "self.sums[key] = self.sums.get(key, 0.0) + value", "self.sums[key] = value",
        "metrics are over all samples", (f"{LOOP}::test_metrics_over_batches_are_those_of_scikit_learn",),
    ),
    Defect(
        "the loss is a mean of batches", "training/evaluate.py",
        'sums[f"{i}.mass"] += mass', 'sums[f"{i}.mass"] += 1',
        "the loss is a mean over samples", (f"{LOOP}::test_metrics_over_batches_are_those_of_scikit_learn",),
    ),
    Defect(
        "measuring leaves the model in eval mode", "training/evaluate.py",
        "        part.training = mode\n", "        pass\n",
        "modes are as before", (f"{LOOP}::test_metrics_over_batches_are_those_of_scikit_learn",),
    ),
    # --- the loop
    Defect(
        "every epoch has the same order", "training/data.py",
        "(seed * 1_000_003 + epoch)", "(seed * 1_000_003)",
        "another epoch has another order", (f"{FIT}::test_the_global_batch_does_not_depend_on_the_number_of_processes",),
    ),
    Defect(
        "every seed has the same order", "training/data.py",
        "(seed * 1_000_003 + epoch)", "(epoch)",
        "another seed has another order", (f"{LOOP}::test_orders_are_a_function_of_seed_and_epoch",),
    ),
    Defect(
        "a batch of one is dropped wherever it is", "training/data.py",
        "if not (len(chunk) == 1 and batch > 1 and drop_single and len(indices) > 1)",
        "if not (len(chunk) == 1 and drop_single)", "only a short last batch is left out",
        ("tests/training/test_single.py::test_only_a_short_last_batch_is_left_out",
                                                f"{FIT}::test_batches_are_counted_right"),
    ),
    Defect(
        "the worst epoch is put back", "training/state.py",
        "if run.best is None or value < run.best[0]:", "if run.best is None or value > run.best[0]:",
        "the best epoch is put back", (f"{FIT}::test_the_best_epoch_is_put_back",),
    ),
    Defect(
        "the best epoch by accuracy is the worst", "training/state.py",
        "value = row[metric] if less_is_better(metric) else -row[metric]", "value = row[metric]",
        "the best epoch is put back, by any metric", (f"{LOOP}::test_the_best_epoch_by_any_metric_is_kept",),
    ),
    Defect(
        "an optimizer that forgot", "training/state.py",
        'run.optimizer.load_state_dict({"state": state, "param_groups": groups})', "pass",
        "a run that goes on ends where it would have ended", RESUME,
    ),
    Defect(
        "a schedule that begins anew", "training/state.py",
        '    run.scheduler.last_epoch = facts["steps"]\n', "",
        "a run that goes on ends where it would have ended", RESUME,
    ),
    Defect(
        "patience that begins anew", "training/state.py",
        'run.rows, run.stale = facts["rows"], facts["stale"]', 'run.rows, run.stale = facts["rows"], 0',
        "a run that goes on ends where it would have ended", RESUME,
    ),
    Defect(
        "warm from the start", "training/optimize.py",
        "return (step + 1) / warmup", "return 1.0",
        "the rate rises over the warmup", (f"{LOOP}::test_schedules_are_their_closed_forms",),
    ),
    Defect(
        "a cosine that rises", "training/schedules.py",
        "return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * done))",
        "return end + (1 - end) * 0.5 * (1 - math.cos(math.pi * done))",
        "the rate follows its schedule", (f"{LOOP}::test_schedules_are_their_closed_forms",),
    ),
    Defect(
        "gradients are not bounded", "training/fit.py",
        "nn.utils.clip_grad_norm_([p for g in run.optimizer.param_groups for p in g[\"params\"]], work.clip)", "pass",
        "clipping bounds the step", (f"{FIT}::test_clipping_bounds_the_step",),
    ),
    Defect(
        "pieces of a batch weigh alike", "training/fit.py",
        "weight = piece.live * world / rows", "weight = 1.0",
        "accumulated pieces make the same step",
        ("tests/training/test_objectives.py::test_accumulated_pieces_make_the_same_step",),
    ),
    Defect(
        "frozen norms are trained", "training/fit.py",
        'if not type(part).__name__.startswith("Frozen"):', "if True:",
        "what is frozen stands still", (f"{LOOP}::test_a_frozen_norm_stands_still_in_training",),
    ),
    Defect(
        "zeros move with the rest", "training/fit.py",
        "            grad.mul_(moving)\n", "            pass\n",
        "zeros that are held stay",
        ("tests/verbs/test_prune.py::test_zeros_that_are_held_stay_through_every_optimizer_and_others_move",),
    ),
    Defect(
        "the answers of other samples", "training/teachers.py",
        "self.tables[name][places].to(self.device)", "self.tables[name][: len(places)].to(self.device)",
        "answers that are remembered are those that would be given",
        (f"{LOOP}::test_answers_that_are_remembered_are_those_that_would_be_given",),
    ),
)  # fmt: skip
