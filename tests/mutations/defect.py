"""One defect: where it is, what it changes, which law breaks, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Defect:
    """`old` stands once in `file` (under `netxform/`) and becomes `new`; then `law` does not hold, and `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    law: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file, from the root of the checkout."""
        return Path("netxform") / self.file

    def problem(self, root: Path = ROOT) -> str | None:
        """Why the defect cannot be put in, or None."""
        path = root / self.path
        if not path.exists():
            return f"no file {self.path}"
        count = path.read_text().count(self.old)
        return None if count == 1 else f"its text stands {count} times in {self.path}"
