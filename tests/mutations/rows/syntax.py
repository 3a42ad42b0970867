"""Text: formatting, expansion, selections, conditions."""

from __future__ import annotations

from tests.mutations.defect import Defect

TREE = ("tests/syntax/test_brackets.py",)
COMMENTS = "tests/syntax/test_comments.py"
KEPT = (f"{COMMENTS}::test_every_comment_stays_with_its_statement",)
SELECTOR = ("tests/language/test_selector.py",)
EXPAND = "tests/compiler/test_expansion_laws.py"

DEFECTS: tuple[Defect, ...] = (
    Defect(
        "comments beside a statement are dropped", "syntax/format.py",
        "if statement.trailing is not None:", "if False:",
        "every comment stays with its statement", KEPT,
    ),
    Defect(
        "comments beside a block are dropped", "syntax/format.py",
        'else f"{head}\\n{rest}  # {statement.trailing}"', 'else f"{head}\\n{rest}"',
        "every comment stays with its statement", KEPT,
    ),
    Defect(
        "comments above a statement are dropped", "syntax/format.py",
        'out += [f"{indent}# {c}".rstrip() for c in statement.comments]', "pass",
        "every comment stays with its statement", KEPT,
    ),
    Defect(
        "comments at the end are dropped", "syntax/format.py",
        'lines += [f"# {c}".rstrip() for c in program.tail]', "pass",
        "every comment stays with its statement", KEPT,
    ),
    Defect(
        "a difference on the right loses its brackets", "syntax/format.py",
        "{_expression(node.right, 3)}", "{_expression(node.right, 2)}",
        "a tree comes back from its text", TREE,
    ),
    Defect(
        "an or inside an and loses its brackets", "syntax/format.py",
        "loose = isinstance(node, ast.Or) or (level > 0 and isinstance(node, ast.And))", "loose = False",
        "a tree comes back from its text", TREE,
    ),
    Defect(
        "quotes in a text are not escaped", "syntax/format.py",
        ".replace('\"', '\\\\\"')", "",
        "a tree comes back from its text", TREE,
    ),
    Defect(
        "numbers are cut short", "syntax/format.py",
        "        if float(short) == value:\n", "        if abs(float(short) - value) <= 1e-4 * abs(value):\n",
        "a tree comes back from its text", TREE,
    ),
    # --- expansion
    Defect(
        "the other branch", "compiler/expand.py",
        "return _block(statement.then if decided else statement.otherwise,",
        "return _block(statement.otherwise if decided else statement.then,",
        "an if takes the branch that its condition says", (f"{EXPAND}::test_an_if_takes_the_branch_that_its_condition_says",),
    ),
    Defect(
        "arguments of a macro in the wrong order", "compiler/expand.py",
        "a.key or macro.parameters[i]: a.value", "a.key or macro.parameters[-1 - i]: a.value",
        "a macro is its body with its arguments", (f"{EXPAND}::test_a_macro_is_its_body_with_its_arguments",),
    ),
    Defect(
        "the default for the given value", "compiler/expand.py",
        "    if name in state.overrides:\n", "    if name in state.overrides and statement.default is None:\n",
        "a given value counts", (f"{EXPAND}::test_a_given_value_counts_and_has_its_range",),
    ),
    Defect(
        "ranges are open", "compiler/expand.py",
        "elif not low_high[0] <= number(value) <= low_high[1]:", "elif not low_high[0] < number(value) < low_high[1]:",
        "both ends belong to a range", (f"{EXPAND}::test_a_given_value_counts_and_has_its_range",),
    ),
    Defect(
        "ranges are not looked at", "compiler/expand.py",
        "elif not low_high[0] <= number(value) <= low_high[1]:", "elif False:",
        "a value outside its range is refused", (f"{EXPAND}::test_a_given_value_counts_and_has_its_range",),
    ),
    # --- conditions
    Defect(
        "or for and", "compiler/conditions.py",
        "absorbing = isinstance(condition, ast.Or)", "absorbing = isinstance(condition, ast.And)",
        "conditions are those of logic", (f"{EXPAND}::test_conditions_are_those_of_logic",),
    ),
    Defect(
        "what is not known is true", "compiler/conditions.py",
        "return (None if None in verdicts else not absorbing), seen", "return not absorbing, seen",
        "conditions are those of logic with what is not known", (f"{EXPAND}::test_conditions_are_those_of_logic",),
    ),
    Defect(
        "FLOPs are MACs", "compiler/conditions.py",
        '"flops": 2 * of.macs', '"flops": of.macs',
        "a multiply-accumulate is two operations", (f"{EXPAND}::test_costs_by_name",),
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
)  # fmt: skip
