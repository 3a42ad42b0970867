"""Data from Python, samples bound to arguments, loading, texts; losses of outputs of every shape."""

from __future__ import annotations

from tests.mutations.defect import Defect

PYTHON = "tests/sources/test_python_data.py"
BOTH = "tests/training/test_inputs_outputs.py"
TOKENS = "tests/sources/test_tokens.py"
SAME = (f"{PYTHON}::test_one_data_set_in_every_form_trains_to_the_same_bytes",)
DRAWN = (f"{PYTHON}::test_what_a_data_set_draws_is_the_same_with_any_number_of_workers",)
CURVED = (f"{BOTH}::test_slopes_and_curvature_are_those_of_autograd",)

DEFECTS: tuple[Defect, ...] = (
    Defect(
        "what a sample draws depends on who loads it", "sources/data/given/samples.py",
        "torch.default_generator.manual_seed(seed)", "pass",
        "what a data set draws is a function of seed, epoch and sample", DRAWN,
    ),
    Defect(
        "numpy draws as it likes", "sources/data/given/samples.py",
        "np.random.seed(seed)", "pass",
        "what a data set draws is a function of seed, epoch and sample", DRAWN,
    ),
    Defect(
        "the generators of the caller are moved", "sources/data/given/samples.py",
        "torch.set_rng_state(states[0])", "pass",
        "loading leaves the caller's random numbers alone",
        (f"{PYTHON}::test_the_generators_of_the_caller_are_left_as_they_were",),
    ),
    Defect(
        "parts of loaded samples begin at the first", "sources/data/given/samples.py",
        "return (places if self.places is None else self.places[places]).tolist()", "return places.tolist()",
        "parts are disjoint, whatever form the data has", SAME,
    ),
    Defect(
        "a memory map is read into memory", "sources/data/given/python.py",
        "if isinstance(value, np.memmap) and value.dtype.kind in", "if value is None and value.dtype.kind in",
        "memory-mapped columns stay where they are", (f"{PYTHON}::test_a_memory_map_is_not_read_whole",),
    ),
    Defect(
        "images of bytes stay bytes", "sources/data/given/binding.py",
        "return found / 255 if scaled else found", "return found",
        "images of bytes are numbers in [0, 1]", (f"{PYTHON}::test_images_of_bytes_are_shown_in_0_to_1",),
    ),
    Defect(
        "fields go to arguments in their own order", "sources/data/given/binding.py",
        "return tuple(n if n in held else None for n in wanted)", "return tuple(held)[: len(wanted)]",
        "fields go to the arguments of their names", (f"{PYTHON}::test_fields_go_to_the_arguments_of_their_names",),
    ),
    Defect(
        "every process learns all of a stream", "training/data.py",
        "at = share[0] - begun", "at = torch.arange(len(share[0]))",
        "each sample of a stream is in one share", (f"{PYTHON}::test_a_stream_is_gone_through_once_in_its_order",),
    ),
    Defect(
        "the target is the token itself", "sources/tokenized.py",
        "y[: len(ids) - 1] = ids[1:]", "y[: len(ids) - 1] = ids[:-1]",
        "the target is the next token",
        (f"{TOKENS}::test_the_target_is_the_next_token_everywhere_and_nothing_behind_the_text",),
    ),
    Defect(
        "padding counts as a target", "sources/tokenized.py",
        "y = np.full((count * length,), IGNORED", "y = np.full((count * length,), padding",
        "behind the text nothing counts",
        (f"{TOKENS}::test_the_target_is_the_next_token_everywhere_and_nothing_behind_the_text",),
    ),
    Defect(
        "positions that do not count weigh", "pruning/loss.py",
        "kept = (target != IGNORED).double()", "kept = torch.ones_like(target).double()",
        "the loss of a sequence is the mean over tokens that count",
        (f"{BOTH}::test_a_loss_of_sequences_is_the_mean_over_tokens_that_count",),
    ),
    Defect(
        "drawn positions are not scaled", "pruning/loss.py",
        "return found if target is None else found * weights_of(target).sqrt()[..., None]", "return found",
        "what is drawn has the second derivative of the loss for its mean square", CURVED,
    ),
    Defect(
        "labels of several classes are drawn as normal numbers", "pruning/loss.py",
        "return (torch.bernoulli(p, generator=rng) - p) / width**0.5", "return torch.bernoulli(p, generator=rng) - p",
        "what is drawn has the second derivative of the loss for its mean square", CURVED,
    ),
    Defect(
        "classes of the teacher in its own order", "training/soft.py",
        "return rows[:, mine], [v[:, theirs] for v in known], target",
        "return rows[:, mine], [v[:, : len(theirs)] for v in known], target", "classes are shared by their numbers",
        (f"{BOTH}::test_classes_are_shared_by_their_numbers",),
    ),
    Defect(
        "the data's normalisation is not undone", "training/teachers.py",
        "x = x * _channels(self.normal[1], x) + _channels(self.normal[0], x)", "x = x * _channels(self.normal[1], x)",
        "a teacher is shown images normalised as it learnt them",
        (f"{BOTH}::test_a_teacher_is_shown_images_in_its_size_and_its_normalisation",),
    ),
    Defect(
        "without labels nothing moves", "pruning/loss.py",
        "y = logits(self._network.module(*arguments(x)), self._output).detach()",
        "y = logits(self._network.module(*arguments(x)), self._output).detach() * 0",
        "without labels the change of the outputs is measured",
        (f"{BOTH}::test_scores_without_labels_measure_how_far_the_outputs_move",),
    ),
)  # fmt: skip
