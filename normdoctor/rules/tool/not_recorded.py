"""ND001: a model whose forward could not be recorded."""

from __future__ import annotations

from collections.abc import Iterator

from normdoctor.findings import Finding
from normdoctor.rules.runs import Run, RunRule


class NotRecorded(RunRule):
    """The forward of a model could not be recorded.

    ## What it does
    Says why the forward of a target could not be recorded, and how many rules were skipped for that.

    ## Why is this bad?
    Most rules read the recorded forward: what follows what, with which shapes. Without it they cannot
    run, and that nothing was found is then no sign of health. The run ends with exit code 2 anyway; this
    finding puts the reason where reports and editors show it.

    ## Example
    ```python bad
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode = nn.Linear(8, 4)
            self.decode = nn.Linear(8, 8)

        def forward(self, x):
            return self.decode(self.encode(x))  # four features go where eight are expected


    model = Net()  # ND001
    inputs = torch.randn(2, 8)
    ```

    ```python good
    import torch
    from torch import nn


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode = nn.Linear(8, 4)
            self.decode = nn.Linear(4, 8)

        def forward(self, x):
            return self.decode(self.encode(x))


    model = Net()
    inputs = torch.randn(2, 8)
    ```

    ## When to ignore
    When the model cannot run where it is checked (it needs a device or data that are not there), and the
    rules about single layers are all that is wanted. Ignoring the rule does not change the exit code.

    ## References
    None.
    """

    code = "ND001"
    name = "not-recorded"
    examples = True

    def check_run(self, run: Run) -> Iterator[Finding]:
        """One finding for each target without a graph."""
        for case in run.unrecorded:
            root = next((module for module in case.facts.modules if module.path == ""), None)
            count = len(case.skipped)
            rules = "1 rule was" if count == 1 else f"{count} rules were"
            yield self.about(
                f"the forward could not be recorded, {rules} skipped: {case.reason}",
                target=case.facts.target,
                modules=("",),
                location=root.origin if root else None,
                evidence={"reason": case.reason, "skipped": list(case.skipped)},
                help=case.hint or None,
            )
