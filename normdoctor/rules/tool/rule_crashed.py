"""ND004: a rule that raised."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding, Severity
from normdoctor.rules.runs import Run, RunRule


class RuleCrashed(RunRule):
    """A rule raised an error; the other rules went on.

    ## What it does
    Reports each rule that raised, of normdoctor or of a plugin, with the error. The exit code is 2. `-v`
    prints the traceback. It is reported whatever is selected.

    ## Why is this bad?
    What the rule looks for was not looked for. It is a fault of the rule, not of the model.

    ## Example
    ```text
    error[ND004] rule-crashed: the rule ABC101 my-rule raised KeyError: 'eps'
    ```

    ## When to ignore
    Ignore the rule that raises (`--ignore ABC101`), so that the rest can pass. Ignoring ND004 hides the
    message, not the exit code.

    ## References
    None.
    """

    code = "ND004"
    name = "rule-crashed"
    severity = Severity.ERROR
    always = True

    def check_run(self, run: Run) -> Iterator[Finding]:
        """One finding for each rule and target."""
        for crash in run.crashes:
            yield self.about(
                f"the rule {crash.code} {crash.name} raised {crash.summary}",
                target=crash.target,
                evidence={"rule": crash.code, "error": crash.summary},
                help="A fault of the rule, not of the model; the other rules went on. Please report it.",
            )
