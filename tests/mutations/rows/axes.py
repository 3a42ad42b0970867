"""Axis types: the algebra, the rules of operations and layers, roles, changes along axes."""

from __future__ import annotations

from tests.mutations.defect import Defect

AXES = "tests/axes/test_axes.py"
EDITS = "tests/axes/test_index_map_laws.py"
ROLES = ("tests/axes/test_roles.py",)
PERMUTED = (f"{AXES}::test_permuting_every_free_atom_leaves_the_function",)
WIDENED = (f"{AXES}::test_widened_layers_compute_the_same_function_or_are_refused",)
GONE = (f"{AXES}::test_what_no_consumer_reads_can_go",)
GENERATED = (f"{AXES}::test_generated_networks_obey_the_permutation_law",)
ALGEBRA = tuple(
    f"{EDITS}::test_{law}"
    for law in (
        "backwards_is_from_the_last_to_the_first",
        "segments_stand_one_behind_the_other",
        "an_axis_can_be_taken_apart_into_any_factors",
    )
)
RECURRENT = ("tests/axes/test_recurrent.py::test_every_free_axis_may_be_permuted",)
OPTIMIZER = ("tests/verbs/test_grow.py::test_an_optimizer_goes_with_the_network",)
REFUSED = (f"{EDITS}::test_what_copies_would_change_is_refused_beforehand",)

DEFECTS: tuple[Defect, ...] = (
    # --- the algebra
    Defect(
        "a lock is lost where two axes become one", "axes/algebra.py",
        "            b.locked = b.locked or a.locked\n", "",
        "what is locked stays locked", (*PERMUTED, *GENERATED),
    ),
    Defect(
        "what is mixed is lost where two axes become one", "axes/algebra.py",
        "            b.mixed |= a.mixed\n", "",
        "what is mixed stays mixed", (f"{EDITS}::test_what_is_known_of_two_axes_is_known_of_the_one_that_they_become",),
    ),
    Defect(
        "a sum read backwards keeps its order", "axes/algebra.py",
        "return Sum(tuple(mirrored(p) for p in reversed(factor.parts)))",
        "return Sum(tuple(mirrored(p) for p in factor.parts))",
        "backwards is from the last to the first", ALGEBRA,
    ),
    Defect(
        "indices of a mirror forwards", "axes/algebra.py",
        "inner = [here - 1 - i for i in reversed(index(factor.atom))]", "inner = [here - 1 - i for i in index(factor.atom)]",
        "backwards is from the last to the first", ALGEBRA,
    ),
    Defect(
        "segments begin where the last one began", "axes/algebra.py",
        "                    start += size(part)\n", "",
        "segments stand one behind the other", ALGEBRA,
    ),
    Defect(
        "a factor is taken apart the wrong way round", "axes/algebra.py",
        "pair = (Atom(outer), Atom(factor.size // outer))", "pair = (Atom(factor.size // outer), Atom(outer))",
        "an axis can be taken apart into any factors", ALGEBRA,
    ),
    Defect(
        "indices of a product column by column", "axes/algebra.py",
        "out = [o * here + i for o in out for i in inner]", "out = [o * here + i for i in inner for o in out]",
        "an axis can be taken apart into any factors", ALGEBRA,
    ),
    # --- rules
    Defect(
        "outputs are free", "axes/infer.py",
        '                        lock(dim, Lock("output", leaf.source or ""))\n', "                        pass\n",
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "rows that are looked up are free", "axes/rules/lookup.py",
        '    lock(weight.dims[0], Lock("lookup", t.at))\n    return Typed([*numbers.dims', "    return Typed([*numbers.dims",
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "statistics of BatchNorm are axes of their own", "axes/rules/normalisation.py",
        "        unify(tensor.dims[0], x.dims[1], t.at)\n    if batch_statistics:", "    if batch_statistics:",
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "LayerNorm mixes nothing", "axes/rules/normalisation.py",
        "        t.mix(dim, kind)\n", "",
        "widened layers compute the same or are refused", WIDENED,
    ),
    Defect(
        "a sum is a mean", "axes/rules/reduction.py",
        '"mean": "mean", "sum": "sum",', '"mean": "mean", "sum": "mean",',
        "widened layers compute the same or are refused", REFUSED,
    ),
    Defect(
        "a softmax mixes nothing", "axes/rules/reduction.py",
        '    t.mix(x.dims[axis_of(x, dim)], "softmax")\n', "",
        "widened layers compute the same or are refused", REFUSED,
    ),
    Defect(
        "the other dimension of a product is summed", "axes/rules/products.py",
        "t.contract(x, len(x.shape) - 1, y, max(len(y.shape) - 2, 0))",
        "t.contract(x, max(len(x.shape) - 2, 0), y, len(y.shape) - 1)",
        "what is free may be permuted", (*PERMUTED, *WIDENED),
    ),
    Defect(
        "a letter of an equation is many axes", "axes/rules/products.py",
        "                unify(where[letter][0].dims[where[letter][1]], operand.dims[i], t.at)\n", "                pass\n",
        "what is free may be permuted",
        (f"{AXES}::test_permuting_every_free_atom_leaves_the_function[Einsum]",
         f"{EDITS}::test_letters_of_an_equation_are_axes"),
    ),
    Defect(
        "groups of a convolution behind their channels", "axes/rules/convolution.py",
        "unify(weight.dims[0], group + outer, t.at)", "unify(weight.dims[0], outer + group, t.at)",
        "what is free may be permuted", (*PERMUTED, *GENERATED),
    ),
    Defect(
        "taps of a kernel are free", "axes/rules/convolution.py",
        '    for dim in weight.dims[2:]:\n        lock(dim, Lock("kernel", t.at))\n', "",
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "a bias of its own", "axes/rules/convolution.py",
        "        unify(made, bias.dims[0], t.at)\n", "",
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "two halves of a gate are two axes", "axes/rules/pointwise.py",
        "        unify(halves[0], halves[1], t.at)\n", "",
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "a shuffle that shuffles nothing", "axes/rules/shuffle.py",
        "parts[1] + parts[0], *x.dims[2:]", "parts[0] + parts[1], *x.dims[2:]",
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "flipped as it is", "axes/rules/pieces.py",
        "[mirrored(normal(d)) if i in axes else d for i, d in enumerate(x.dims)]", "list(x.dims)",
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "rolled as it is", "axes/rules/pieces.py",
        "out[i] = concat([parts[1], parts[0]])", "out[i] = concat([parts[0], parts[1]])",
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "copies of elements for copies of the whole", "axes/rules/pieces.py",
        'dims = [fresh(int(n), Lock("stack", t.at)) + (x.dims[j - lead] if j >= lead else ONE) for j, n in enumerate(times)]',
        'dims = [(x.dims[j - lead] if j >= lead else ONE) + fresh(int(n), Lock("stack", t.at)) for j, n in enumerate(times)]',
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "what is stacked is apart", "axes/rules/pieces.py",
        "        for a, b in zip(tensors[0].dims, x.dims, strict=True):\n            unify(a, b, t.at)\n    dims", "    dims",
        "what is free may be permuted", (f"{EDITS}::test_what_is_stacked_is_one_axis",),
    ),
    Defect(
        "widths of queries and heads exchanged", "axes/rules/attention.py",
        "rows = [heads + width, heads + width, heads + value_width]",
        "rows = [width + heads, width + heads, value_width + heads]",
        "what is free may be permuted", PERMUTED,
    ),
    Defect(
        "the scale of a product of queries and keys is forgotten", "axes/rules/attention.py",
        "    t.inner_product(width)\n", "",
        "widened layers compute the same or are refused", (*WIDENED, *PERMUTED),
    ),
    Defect(
        "gates of a cell behind its state", "axes/rules/recurrent.py",
        'stacked: Dim = fresh(gates, Lock("gates", t.at)) + state\n            projected',
        'stacked: Dim = state + fresh(gates, Lock("gates", t.at))\n            projected',
        "what is free may be permuted", (*PERMUTED, *RECURRENT),
    ),
    # --- roles and edits
    Defect(
        "every axis is carried where it is summed over", "axes/roles.py",
        "types.places.get(atom, ()) if p not in chosen)", "types.places.get(atom, ()))",
        "a scale that is carried is undone where it is summed", ROLES,
    ),
    Defect(
        "a tied tensor counts as a consumer", "axes/roles.py",
        "pure = [s for s in sites if often[s] >= types.uses.get(s[0], 0)]", "pure = sites",
        "a tensor that is carried here and summed there is tied", ROLES,
    ),
    Defect(
        "factors of a product are added", "axes/roles.py",
        "out = [o * i for o in out for i in inner]", "out = [o + i for o in out for i in inner]",
        "products of axes take the product of the factors", ROLES,
    ),
    Defect(
        "the optimizer's memory stays in the old order", "axes/reindex.py",
        "_gathered(value, gathers.get(name, {})) if same else copy.copy(value)", "copy.copy(value)",
        "an optimizer goes with the network", OPTIMIZER,
    ),
    Defect(
        "a scale of attention follows its width", "axes/reindex.py",
        '"scale": float(old) ** -0.5', '"scale": float(size_under(dim, sizes)) ** -0.5',
        "what no consumer reads can go; widened layers compute the same", (*GONE, *WIDENED),
    ),
    Defect(
        "what is drawn is as wide as one", "axes/index_maps.py",
        " * float(tensor.double().std())", "",
        "new rows are as wide as the tensor", (f"{EDITS}::test_new_slices_are_as_wide_as_the_tensor",),
    ),
    Defect(
        "noise in the place of what was there", "axes/index_maps.py",
        "drawn if fill.noise is None else old + fill.noise * drawn", "drawn if fill.noise is None else fill.noise * drawn",
        "with noise, what is there is kept", (f"{EDITS}::test_new_slices_are_as_wide_as_the_tensor",),
    ),
)  # fmt: skip
