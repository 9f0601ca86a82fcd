"""What a benchmark's numbers were measured on: date, processor, load, versions."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def machine(*packages: str, **more: str | int | float) -> dict[str, str | int | float]:
    """This machine, as results/bench/*.json states it.

    Args:
        packages: Distributions whose versions matter.
        more: Further facts, such as the number of threads.
    """
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", info.read_text() if info.exists() else "", flags=re.MULTILINE)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count() or 0,
        "load_before": round(os.getloadavg()[0], 2),
        **more,
        **{name.replace("-", "_"): version(name) for name in packages},
    }
