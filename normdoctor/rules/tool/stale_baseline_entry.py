"""ND003: an entry of the baseline whose finding is gone."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, masked
from normdoctor.rules.runs import Run, RunRule


class StaleBaselineEntry(RunRule):
    """An entry of the baseline stands for a finding that is gone.

    ## What it does
    Finds entries of the baseline file whose findings, all or some, are no longer there. An entry is judged
    only if its target was examined in this run and its rule ran on it.

    ## Why is this bad?
    The entry would hide the same fault when it comes back.

    ## Example
    With `--baseline baseline.json`, after the bias of `stem.conv` was taken out:

    ```text
    baseline.json:9:7: ND003 stale-baseline-entry: ND101 bias-before-norm of `stem.conv` is in the baseline
    and no longer found
    ```

    `--prune-baseline` removes it.

    ## When to ignore
    When a finding comes and goes with the inputs, the device or the version of a library.

    ## References
    None.
    """

    code = "ND003"
    name = "stale-baseline-entry"

    def check_run(self, run: Run) -> Iterator[Finding]:
        """One finding for each entry that is stale in part or whole."""
        for entry in run.stale_entries():
            left = entry.count - entry.gone
            found = f"{entry.count} times and found {left}" if left else "and no longer found"
            yield self.about(
                f"{entry.code} {entry.name} of {masked(entry.modules)} is in the baseline {found}",
                target=entry.target,
                modules=entry.modules,
                location=entry.location,
                evidence={"rule": entry.code, "count": entry.count, "gone": entry.gone},
                help="--prune-baseline removes what is gone.",
            )
