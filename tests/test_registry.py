"""Things by name: what is there, what is near, what is looked up when."""

from __future__ import annotations

import pytest

from netxform.errors import NetxformError
from netxform.registry import Registry, called


def test_a_thing_is_found_by_its_name_and_the_last_one_counts() -> None:
    made: Registry[int] = Registry("netxform.nothing", "number", "X0401")
    made.register("one", "uno")(1)
    assert (made.find("one"), made.find("uno"), made.names()) == (1, 1, ("one", "uno"))
    made.register("one")(11)
    assert dict(made.items()) == {"one": 11, "uno": 1}
    del made["uno"]
    assert "uno" not in made and list(made) == ["one"]


def test_an_unknown_name_is_an_error_with_what_is_near() -> None:
    made: Registry[int] = Registry("netxform.nothing", "number", "X0401")
    made.register("seventeen")(17)
    for name, told in (("seventen", "did you mean `seventeen`?"), ("x", "known: seventeen")):
        with pytest.raises(NetxformError) as caught:
            made.find(name)
        assert caught.value.diagnostics[0].code == "X0401"
        assert caught.value.diagnostics[0].helps == (told,)


def test_own_files_are_imported_when_a_name_is_first_asked_for() -> None:
    made: Registry[int] = Registry("netxform.nothing", "number", "X0401", "no_such_package_of_ours")
    with pytest.raises(ModuleNotFoundError):
        made.names()


def test_a_function_may_be_named_by_a_text() -> None:
    assert called("math:sqrt")(4) == 2
    assert called(abs)(-1) == 1
