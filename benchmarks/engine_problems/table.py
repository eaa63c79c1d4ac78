"""Results as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["auto_table", "plain_table", "steps_table"]


def steps_table(found: Mapping[str, Any], where: str) -> str:
    """Microseconds a step, and how many times vipack's best tier goes into each."""
    lines = [f"\nTime a step, {where}; medians of interleaved turns; x = times the best of vipack's tiers"]
    for problem, methods in found.items():
        lines.append(problem)
        times = {n: v["step"] for n, v in methods.items() if "step" in v}
        own = [t for n, t in times.items() if n in ("vipack compiled", "vipack interpreted", "vipack traced")]
        for name, result in methods.items():
            if "step" not in result:
                lines.append(f"  {name:34s} {result.get('reason', 'failed')}")
                continue
            ratio = f"{result['step'] / min(own):10.2f}x" if own else ""
            lines.append(
                f"  {name:34s}{1e6 * result['step']:13.2f} us {ratio}   set-up {result['setup']:6.1f} s"
                f"   ({1e6 * result['low']:.2f} to {1e6 * result['high']:.2f})"
            )
    return "\n".join(lines)


def auto_table(found: Mapping[str, Any]) -> str:
    """Seconds of whole runs."""
    lines = ["\nWhole runs, seconds (capture and compile included); the last column is auto over the best tier"]
    for name, row in found.items():
        tiers = {k: v for k, v in row.items() if k != "auto"}
        values = "  ".join(f"{k} {v:8.2f}" for k, v in row.items())
        lines.append(f"  {name:40s} {values}   {row['auto'] / min(tiers.values()):5.2f}")
    return "\n".join(lines)


def plain_table(title: str, found: Mapping[str, Any]) -> str:
    """A line a name."""
    lines = [f"\n{title}"]
    for name, row in found.items():
        values = row if isinstance(row, dict) else {"": row}
        lines.append(
            f"  {name:40s} "
            + "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
        )
    return "\n".join(lines)
