"""The graph: surgery, capture, guards, modes, activations, cost."""

from __future__ import annotations

from tests.mutations.defect import Defect

SURGERY = "tests/graph/test_surgery.py"
STAYS = (f"{SURGERY}::test_the_given_network_stays_as_it_was_and_the_twin_changes_alike",)
REPLACED = (f"{SURGERY}::test_a_replaced_layer_computes_what_its_tensors_say",)
ACTIVATIONS = "tests/graph/test_activations.py"
GUARDS = "tests/capture/test_guards.py"
DECISION = (f"{GUARDS}::test_a_decision_on_a_value_is_kept",)
MODES = "tests/capture/test_modes.py"
TRAINS = (f"{MODES}::test_train_does_what_the_model_does",)
PROGRAM = "tests/capture/test_equivalence.py"
COST = ("tests/capture/test_capture.py::test_cost_counts_what_pytorch_counts",)
TIED = ("tests/capture/test_capture.py::test_tied_weights_stay_tied_and_count_once",)
HELD = ("tests/graph/test_tensors.py",)

DEFECTS: tuple[Defect, ...] = (
    Defect(
        "edits are made on the given network", "graph/surgery.py",
        "changed = network if edit.operations[0].copies else clone(network)", "changed = network",
        "the given network stays as it was", STAYS,
    ),
    Defect(
        "a factor is put where another belongs", "graph/surgery.py",
        "        for path in paths:\n            value.meta", "        for path in reversed(paths):\n            value.meta",
        "a replaced layer computes what its tensors say", REPLACED,
    ),
    Defect(
        "a steeper slope than stated", "graph/activations.py",
        'Activation(nn.Hardswish, ("hardswish",), 1.5,', 'Activation(nn.Hardswish, ("hardswish",), 1.2,',
        "the slope is the largest and no larger", (f"{ACTIVATIONS}::test_the_slope_is_the_largest_and_no_larger",),
    ),
    Defect(
        "ELU twice is ELU", "graph/activations.py",
        'Activation(nn.ELU, ("elu",), 1.0, repeatable=True)',
        'Activation(nn.ELU, ("elu",), 1.0, idempotent=True, repeatable=True)',
        "idempotent is what twice is once", (f"{ACTIVATIONS}::test_idempotent",),
    ),
    Defect(
        "softplus of zero is zero", "graph/activations.py",
        'Activation(nn.Softplus, ("softplus",), 1.0, zero=False)', 'Activation(nn.Softplus, ("softplus",), 1.0)',
        "zero maps to zero where it is said to", (f"{ACTIVATIONS}::test_zero_at_zero",),
    ),
    Defect(
        "MACs are FLOPs", "graph/cost.py",
        "counter.get_total_flops() // 2 // max(batch, 1)", "counter.get_total_flops() // max(batch, 1)",
        "cost is what pytorch counts", COST,
    ),
    Defect(
        "MACs of the whole batch", "graph/cost.py",
        "counter.get_total_flops() // 2 // max(batch, 1)", "counter.get_total_flops() // 2",
        "cost is that of one sample", ("tests/graph/test_cost_laws.py",),
    ),
    # --- guards
    Defect(
        "every input is accepted", "graph/guards.py",
        "right = value == wanted or (value != value and wanted != wanted)", "right = True",
        "an input that decides otherwise raises", DECISION,
    ),
    Defect(
        "a check that nobody reads is left out", "graph/guards.py",
        "has_side_effect(require)  # dead-code elimination keeps both\n", "",
        "a decision on a value is kept", (GUARDS,),
    ),
    Defect(
        "the modes are exchanged", "graph/guards.py",
        "return trained if training else evaluated", "return evaluated if training else trained",
        "train() does what the model does", TRAINS,
    ),
    Defect(
        "training's own steps run in eval mode", "graph/guards.py",
        "return function_named(name)(*args, **kwargs) if training else None", "return function_named(name)(*args, **kwargs)",
        "train() does what the model does, and eval() too", (MODES,),
    ),
    Defect(
        "other numbers, same program", "capture/equivalence.py",
        "            return (kind, value)\n        if isinstance(value, Tensor):",
        "            return (kind, None)\n        if isinstance(value, Tensor):",
        "another number is another program", ("tests/capture/test_program_laws.py",),
    ),
    Defect(
        "all tensors have one name", "capture/equivalence.py",
        '                    names.setdefault(id(value), f"{path}.{name}")',
        '                    names.setdefault(id(value), "tensor")',
        "tensors are told apart by name", (f"{PROGRAM}::test_tensors_are_told_apart_by_name",),
    ),
    Defect(
        "writing in place is never seen", "capture/equivalence.py",
        "self.sharing.get(memory(made[0])) == 1", "True",
        "writing in place is the same only where nobody sees it",
        (f"{PROGRAM}::test_writing_in_place_is_the_same_only_where_nobody_sees_it",),
    ),
    Defect(
        "random numbers prove themselves", "capture/equivalence.py",
        "if not self.drawn and torch.Tag.nondeterministic_seeded in func.tags:", "if False:",
        "what a program does not say is not proved", (f"{PROGRAM}::test_what_a_program_does_not_say_is_not_proved",),
    ),
)  # fmt: skip
