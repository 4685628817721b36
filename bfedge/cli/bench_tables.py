"""The tables of `bfedge bench` without a model."""

from __future__ import annotations

from typing import Any

from bfedge.cli.output import count, out, table


def show_result(result: dict[str, Any]) -> None:
    settings, machine = result["settings"], result["machine"]
    out.print(f"{machine['processor']}, {machine['cpus']} processors, load {machine['load']}")
    out.print(f"kernels {settings['kernels']}; {settings['rounds']} interleaved rounds; {settings['clock']}")
    out.print(", ".join(f"{name} {version}" for name, version in result["versions"].items() if version))
    empty = (f"{t['name']} {t['microseconds']['median']:.2f}" for t in result["empty_calls"]["timed"])
    out.print("an empty call, microseconds: " + ", ".join(empty))
    products = result.get("products", [])
    for shape in dict.fromkeys((case["parameters"]["rows"], case["parameters"]["columns"]) for case in products):
        cases = [c for c in products if (c["parameters"]["rows"], c["parameters"]["columns"]) == shape]
        title = f"{shape[0]}x{shape[1]}, microseconds"
        show_cases(title, [columns_of(c["parameters"]["count"]) for c in cases], cases, 1)
    for name, title in (("layers", "one layer, microseconds"), ("whole_model", "whole model, milliseconds")):
        cases = result.get(name, [])
        if cases:
            headings = [f"{c['parameters']['experts']} experts" for c in cases]
            show_cases(title, headings, cases, 1000 if name == "whole_model" else 1)
    if "threads" in result:
        show_cases("threads, milliseconds", ["time that passes"], [result["threads"]], 1000)
    if "curves" in result:
        show_curves(result["curves"])
    out.print("\nIn brackets: how many times as long as the first row, the median of the rounds' ratios.")
    out.print("Of a peer's variants the fastest is shown. All times include the call itself; see the empty calls.")
    for absent in result["absent"]:
        install = f"; `{absent['install']}`" if absent["install"] else ""
        out.print(f"not measured: {absent['peer']}: {absent['reason']}{install}")


def digits(number: float) -> str:
    """Four of them, and no exponent."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.4g}"


def columns_of(count: int) -> str:
    return f"{count} column{'s' * (count > 1)}"


def show_cases(title: str, headings: list[str], cases: list[dict[str, Any]], unit: float) -> None:
    """One row a competitor; of a peer's variants the fastest."""
    rows = table(f"\n{title}", *(f"\n{heading}" for heading in headings))
    cells: dict[str, dict[int, str]] = {}
    for place, case in enumerate(cases):
        for timed in case["timed"]:
            if timed["fastest_of_family"]:
                time = digits(timed["microseconds"]["median"] / unit)
                text = time if timed is case["timed"][0] else f"{time} ({timed['ratio']['median']:.2f})"
                cells.setdefault(timed["family"], {})[place] = text
    for name, row in cells.items():
        rows.add_row(name, *(row.get(place, "") for place in range(len(cases))))
    out.print(rows)


def show_curves(curves: dict[str, Any]) -> None:
    cases = curves["time_by_experts"]
    rows = table("\ntime against experts", *(f"\n{case['name']}" for case in cases))
    for place, experts in enumerate(cases[0]["parameters"]["experts"]):
        timed = [case["timed"][place] for case in cases]
        rows.add_row(
            f"{experts} experts",
            *(f"{digits(t['microseconds']['median'])} us ({t['ratio']['median']:.2f})" for t in timed),
        )
    out.print(rows)
    rows = table("\nmemory against experts", "\nfile", "\nexperts in it", "\nby formula", "\nfloat32 experts")
    for point in curves["memory_by_experts"]:
        names = ("file_bytes", "experts_bytes", "formula_bytes", "standard_float32_bytes")
        rows.add_row(f"{point['experts']} experts", *(count(point[name]) for name in names))
    out.print(rows)
    rows = table("\ntime against tokens, microseconds", "\nattention", "\nthe rest", "\nthe rest, a token")
    for point in curves["time_by_tokens"]:
        attention, others = (point[f"{part}_microseconds"]["median"] for part in ("attention", "other"))
        a_token = point["other_microseconds_a_token"]
        rows.add_row(f"{point['tokens']} tokens", digits(attention), digits(others), f"{a_token:.3g}")
    out.print(rows)
