"""Plans without weights, numbers that do nothing, limits, bundles of strangers."""

from __future__ import annotations

from tests.mutations.defect import Defect

WEIGHTLESS = ("tests/pipeline/test_weightless.py",)
NOTHING = ("tests/verbs/test_nothing_and_all.py",)
GATE = ("tests/factorization/test_ranks.py::test_the_gate_is_named_where_it_is_the_reason_and_nowhere_else",)
LIMITS = ("tests/sources/test_exploits.py::test_files_have_a_limit_before_they_are_read",)
CHANGED = ("tests/faults/test_changed_bundles.py",)

HERE = ("tests/artifacts/test_measured_again_here.py",)

DEFECTS: tuple[Defect, ...] = (
    Defect(
        "tensors of a file lie where the file has them", "sources/state_dicts.py",
        "{name: tensor.clone() for name", "{name: tensor for name",
        "a bundle holds where it was written", HERE,
    ),
    Defect(
        "what is compared by values on meta tensors is taken as proven", "capture/judge.py",
        "        if self.on_meta:\n            self.doubts.append", "        if False:\n            self.doubts.append",
        "the plan is that of the model with its weights", WEIGHTLESS,
    ),
    Defect(
        "code that decides by a device is taken as proven", "capture/proof.py",
        "tensor.is_meta and asked() is not None", "tensor.is_meta and False",
        "the plan is that of the model with its weights", WEIGHTLESS,
    ),
    Defect(
        "what is imported without values is kept", "sources/formats/python.py",
        "                del sys.modules[name]", "                pass",
        "apply sees the values of constants", WEIGHTLESS,
    ),
    Defect(
        "tied tensors without values are told apart", "sources/state_dicts.py",
        "return (memory(tensor), tensor.storage_offset(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)",
        "return (name,)",
        "a tied tensor is stored once", ("tests/sources/test_weights.py", *WEIGHTLESS),
    ),
    Defect(
        "a share of nothing is taken", "pruning/needs.py",
        "why = at_low if value == low else", "why = '' if value == low else",
        "what would do nothing is refused", NOTHING,
    ),
    Defect(
        "a comparison that all values keep is taken", "language/limit.py",
        "if ends[0] != ends[1] or", "if ends[0] or ends[0] != ends[1] or",
        "a comparison divides", NOTHING,
    ),
    Defect(
        "the gate is named where it is not enough", "verbs/factorize.py",
        "alone = error.slower <= error.allowed", "alone = True",
        "gate=none comes first where it is the repair", GATE,
    ),
    Defect(
        "a plan has no limit for networks", "__init__.py",
        "    with _memory(max_memory):\n        return api.plan_spec", "    with _memory(None):\n        return api.plan_spec",
        "one limit for plan and apply", LIMITS,
    ),
    Defect(
        "a network that does not run is verified", "api.py",
        "    check_runs(network, witness.inputs, most)\n", "",
        "one clean error, or a verdict", CHANGED,
    ),
    Defect(
        "a plan that is none is verified", "artifacts/manifest.py",
        "        msgspec.convert(plan, _Plan)\n", "        pass\n",
        "one clean error, or a verdict", CHANGED,
    ),
)  # fmt: skip
