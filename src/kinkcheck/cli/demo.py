"""``kinkcheck demo``: two programs, one function, two derivatives."""

from rich.console import Console


def demo() -> None:
    """Show programs that compute the same function and differ in their derivative."""
    import torch

    import kinkcheck
    from kinkcheck import programs
    from kinkcheck.arithmetic import precision
    from kinkcheck.report.tables import program_table, slope_table

    console = Console()
    console.print(
        "max1 (a loop with >) and max2 (torch.max) compute one function, and so do two ReLUs that "
        "differ in their derivative at 0 alone. [bold]zero[/](t) = max1(t·x) − max2(t·x), and its "
        "like built from the ReLUs, are 0 for every t, and so is their derivative.\n"
    )
    x = programs.ENTRIES[0]
    entries = torch.tensor(x, dtype=torch.float64)
    rows = []
    for name, program in programs.PROGRAMS.items():
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        found = kinkcheck.check(program, (t, entries), raise_exception=False)
        (returned,) = torch.autograd.grad(program(t, entries), t)
        rows.append((name, programs.slopes(program, x), returned.item(), found.kind))
    console.print(slope_table(x, rows))
    console.print(
        "All t·x are tied at t = 0. The maximum has a kink there: max1 returns the slope of one "
        "side, a limit of derivatives nearby, and max2 something between the sides, a subgradient. "
        "Both are right. Their difference has the same slope on both sides, and no kink; AD "
        "returns the difference of two choices that belong to no one side: [bold]wrong[/].\n"
    )
    for x in programs.ENTRIES:
        by_t = {
            t: {
                name: programs.evaluate(t, x, precision.PRECISIONS[name].storage)
                for name in ("float16", "bfloat16", "float32", "float64")
            }
            for t in programs.PLACES
        }
        console.print(program_table(x, by_t), "")
    console.print(
        "Where the tied entries differ (t = 0, distinct entries) the two programs differ over the "
        "reals: a bifurcation, at every precision. Where they are equal both programs have one "
        "derivative over the reals, and differ by a rounding error that shrinks with the "
        "precision: a compensation."
    )
