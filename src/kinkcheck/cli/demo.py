"""``kinkcheck demo``: two programs, one function, two derivatives."""

from rich.console import Console


def demo() -> None:
    """Show programs that compute the same function and differ in their derivative."""
    from kinkcheck import programs
    from kinkcheck.arithmetic import precision
    from kinkcheck.report.tables import program_table

    console = Console()
    console.print(
        "max1 (a loop with >) and max2 (torch.max) compute one function, and so do two ReLUs that "
        "differ in their derivative at 0 alone. [bold]zero[/](t) = max1(t·x) − max2(t·x), and its "
        "like built from the ReLUs, are 0 for every t: a derivative other than 0 is wrong.\n"
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
        "Where the tied entries differ (t = 0, distinct entries) AD is wrong over the reals: a "
        "bifurcation, at every precision. Where they are equal it is wrong in floating point only, "
        "by a rounding error that shrinks with the precision: a compensation."
    )
