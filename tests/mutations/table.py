"""The table of defects: a row for every law that a test is written for. `python -m tests.mutations NAME` tries one."""

from __future__ import annotations

from tests.mutations.defect import Defect

SCORES = ("tests/pruning/test_score_laws.py",)
CLAIMS = ("tests/compiler/test_claims.py",)
STATISTICS = ("tests/compiler/test_statistics.py",)
ALLOCATE = ("tests/factorization/test_allocate.py",)
SELECTOR = ("tests/language/test_selector.py",)
SURGERY = ("tests/graph/test_surgery.py",)
ROLES = ("tests/axes/test_roles.py",)

DEFECTS: tuple[Defect, ...] = (
    # --- scores and choice
    Defect(
        "magnitude of the wrong power", "pruning/scores.py",
        "values, missing = _per_index(network, each, least=2, power=power)",
        "values, missing = _per_index(network, each, least=2, power=3 - power)",
        "magnitude is the norm that it is named after", SCORES,
    ),
    Defect(
        "bn-scale without its sign taken off", "pruning/scores.py",
        "part.weight.detach().double().abs()", "part.weight.detach().double()",
        "bn-scale is |γ|", SCORES,
    ),
    Defect(
        "Fisher of gradients, not of their squares", "pruning/scores.py",
        "sums[name] += slope.detach().double().square().sum(0)", "sums[name] += slope.detach().double().sum(0)",
        "the Fisher diagonal is a mean of squares", SCORES,
    ),
    Defect(
        "highest score goes first", "pruning/ranking.py",
        "key=lambda i, v=values: (v[i], i)", "key=lambda i, v=values: (-v[i], i)",
        "what scores lowest goes first", SCORES,
    ),
    Defect(
        "normalise is ignored", "pruning/ranking.py",
        "return value if value > 0 else 1.0", "return 1.0",
        "scores are compared after they are normalised", SCORES,
    ),
    Defect(
        "the sign of the predicted first order", "pruning/scores.py",
        "total = {a: found.first[a] + s for a, s in found.second.items()}",
        "total = {a: s - found.first[a] for a, s in found.second.items()}",
        "the prediction is first plus second order", SCORES,
    ),
    # --- statistics
    Defect(
        "the plain quantile for the conformal one", "compiler/claims/bounded.py",
        "rank = math.ceil((len(errors) + 1) * level)", "rank = math.ceil(len(errors) * level)",
        "the next sample is covered", STATISTICS,
    ),
    Defect(
        "the median for the quantile", "compiler/claims/bounded.py",
        "return sorted(errors)[rank - 1] if rank <= len(errors) else math.inf", "return sorted(errors)[len(errors) // 2]",
        "the next sample is covered", STATISTICS,
    ),
    Defect(
        "the wrong side of Clopper and Pearson", "compiler/claims/bounded.py",
        "float(beta.ppf(1 - level, right, count - right + 1))", "float(beta.ppf(level, right, count - right + 1))",
        "the bound lies below", STATISTICS,
    ),
    # --- claims
    Defect(
        "same value always holds", "compiler/claims/exact.py",
        "Evidence(claim, 0.0, worst, worst == 0.0, case.count", "Evidence(claim, 0.0, worst, True, case.count",
        "what is broken is called broken", CLAIMS,
    ),
    Defect(
        "same function always holds", "compiler/claims/exact.py",
        "held = exact <= bound and stored <= allowed", "held = True",
        "what is broken is called broken", CLAIMS,
    ),
    Defect(
        "same function looks at the stored network alone", "compiler/claims/exact.py",
        "held = exact <= bound and stored <= allowed", "held = stored <= allowed",
        "an edit that is wrong in float64 alone is seen", CLAIMS,
    ),
    Defect(
        "within bound always holds", "compiler/claims/bounded.py",
        "Evidence(what, allowed, gap, gap <= allowed, case.count", "Evidence(what, allowed, gap, True, case.count",
        "what is broken is called broken", CLAIMS,
    ),
    Defect(
        "no layer is over its bound", "compiler/claims/bounded.py",
        "if s > 1 + _ROUNDING)", "if s > 1e9)",
        "what is broken is called broken", CLAIMS,
    ),
    Defect(
        "a gain that is no number is within its bound", "compiler/claims/bounded.py",
        "    if math.isnan(measured):\n        return math.inf\n", "",
        "NaN is above every bound", CLAIMS,
    ),
    Defect(
        "zeros need not be held", "compiler/claims/training.py",
        'Evidence("zeros held", 0.0, float(lost), lost == 0,', 'Evidence("zeros held", 0.0, float(lost), True,',
        "what is broken is called broken", CLAIMS,
    ),
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
    # --- selections
    Defect(
        "a star crosses dots", "language/paths.py",
        'out.append(r"[^.]*")', 'out.append(r".*")',
        "a path is matched segment by segment", SELECTOR,
    ),
    Defect(
        "a range in braces ends early", "language/paths.py",
        "range(int(low), int(high) + 1)", "range(int(low), int(high))",
        "a path is matched segment by segment", SELECTOR,
    ),
    Defect(
        "a difference takes nothing away", "language/selector.py",
        "return name in sets[0] and (len(sets) < 2 or name not in sets[1])", "return name in sets[0]",
        "operators are those of sets", SELECTOR,
    ),
    Defect(
        "any for all", "language/selector.py",
        "return all(name in s for s in sets)", "return any(name in s for s in sets)",
        "operators are those of sets", SELECTOR,
    ),
    # --- surgery and axes
    Defect(
        "edits are made on the given network", "graph/surgery.py",
        "changed = network if edit.operations[0].copies else clone(network)", "changed = network",
        "the given network stays as it was", SURGERY,
    ),
    Defect(
        "every axis is carried where it is summed over", "axes/roles.py",
        "if (name, i) not in chosen and any(a is atom for a in atoms(dim))", "if any(a is atom for a in atoms(dim))",
        "a scale that is carried is undone where it is summed", ROLES,
    ),
    Defect(
        "a tied tensor counts as a consumer", "axes/roles.py",
        "pure = [s for s in sites if often[s] >= types.uses.get(s[0], 0)]", "pure = sites",
        "a tensor that is carried here and summed there is tied", ROLES,
    ),
)  # fmt: skip
