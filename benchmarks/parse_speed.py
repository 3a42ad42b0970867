"""Does parsing grow linearly, and what does `netxform check` cost beside `import torch`?  python -m benchmarks.parse_speed"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from benchmarks.machine import save
from netxform.syntax.parse import parse

LINE = "freeze layer{i}.** | conv{i}:Conv2d[kernel_size == 3] bn=eval\ntrain head for 5epochs using adamw(lr=1e-3)\n"


def cpu(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parse(LINE)
    rows = []
    for count in (1000, 2000, 5000, 10_000, 20_000):
        text = "".join(LINE.replace("{i}", str(i)) for i in range(count // 2))
        start = time.process_time()
        parse(text)
        rows.append({"statements": count, "cpu_seconds": time.process_time() - start})
    per = [r["cpu_seconds"] / r["statements"] for r in rows]
    spec = Path(__file__).parent.parent / "specs"
    checks = {}
    for path in sorted(spec.glob("*.xform")):
        pairs = [
            (cpu([sys.executable, "-m", "netxform", "check", str(path)]), cpu([sys.executable, "-c", "import torch"]))
            for _ in range(5)
        ]
        checks[path.stem] = {
            "check": median(p[0] for p in pairs),
            "import_torch": median(p[1] for p in pairs),
            "ratio": median(p[0] / p[1] for p in pairs),
        }
    save("parse_speed", {"parse": rows, "growth": per[-1] / per[0], "check_against_import_torch": checks})
    for row in rows:
        print(f"{row['statements']:6} statements  {row['cpu_seconds']:.2f} CPU s")
    print(f"a statement of 20,000 costs {per[-1] / per[0]:.2f}x one of 1,000")
    for name, found in checks.items():
        print(f"check {name:10} {found['check']:.2f} s, import torch {found['import_torch']:.2f} s: {found['ratio']:.3f}")


if __name__ == "__main__":
    main()
