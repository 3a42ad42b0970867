"""Defects of grafts, detectors and of what travels with a model."""

from __future__ import annotations

from tests.mutations.defect import Defect

GRAFT, HF, DETECT, READ = (
    "tests/artifacts/test_graft.py", "tests/artifacts/test_graft_transformers.py", "tests/capture/test_detectors.py",
    "tests/sources/test_hf.py",
)  # fmt: skip
OWN = (f"{GRAFT}::test_layers_and_rows_of_the_model_itself",)

DEFECTS: tuple[Defect, ...] = (
    Defect(
        "a graft is compared in eval mode alone", "artifacts/graft.py",
        "for training in (False, True)", "for training in (False,)",
        "a size that only training reads is found", (f"{GRAFT}::test_training_is_compared_too",),
    ),
    Defect(
        "rows of numbers stay", "artifacts/grafting/sizes.py",
        "rows = sorted(scope.rows.get(tuple(row), ()))", "rows = []; return [], False",
        "widths as a row follow", OWN,
    ),
    Defect(
        "what the capture made is taken for a layer of the model", "artifacts/grafting/layers.py",
        "if path not in modules:  # the capture's own: a function of the model's code, as a layer", "if False:",
        "functions without a layer stay", OWN,
    ),
    Defect(
        "a grafted model passes for one of its base", "artifacts/grafting/configuration.py",
        'model_type = "grafted-{kind}"', 'model_type = "{kind}"',
        "no other class reads it in part", (f"{HF}::test_a_stranger_reads_it_without_netxform",),
    ),
    Defect(
        "the detector's Python code is not stated", "capture/capture.py",
        "left = islands_of(came)", "left = ()",
        "plan and certificate say what is left as it is", (f"{DETECT}::test_it_is_stated_and_stored",),
    ),
    Defect(
        "the configuration lies under its own name", "sources/companions.py",
        'CONFIG = "hf_config.json"', 'CONFIG = "config.json"',
        "nothing half-reads a bundle", (f"{READ}::test_tokenizer_and_configuration_travel",),
    ),
    Defect(
        "what was drawn is not said", "sources/models/hf.py",
        "if names:", "if not names:",
        "tensors that the weights do not hold are named", (f"{READ}::test_what_the_weights_do_not_hold_is_said",),
    ),
)  # fmt: skip
