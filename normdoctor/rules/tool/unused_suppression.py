"""ND002: a suppression comment that silences nothing."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from normdoctor.findings import Applicability, Edit, Finding, Fix
from normdoctor.rules.runs import Run, RunRule


class UnusedSuppression(RunRule):
    """A suppression comment silences nothing.

    ## What it does
    Finds rules in `# normdoctor: ignore[...]`, `# normdoctor: file-ignore[...]` and `# noqa: ...` comments
    that silenced no finding, although they ran.

    A rule in a comment is judged only if it ran on every target that was built or called at the lines that
    the comment covers; a comment at lines where nothing was built or called is not judged (the branch may
    not have been taken), nor is a `file-ignore` in a file of which some model was not checked. Findings
    that are hidden by their confidence count as silenced. Codes of other tools in `# noqa` are none of
    this rule's business.

    ## Why is this bad?
    The comment says that something is wrong here and known. When that was mended, it misleads the
    reader, and it would hide the next fault of this kind at this line.

    ## Example
    ```python bad
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),  # normdoctor: ignore[ND101] -- as published  # ND002
        nn.BatchNorm2d(8),
        nn.ReLU(),
    )
    ```

    ```python good
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),  # normdoctor: ignore[ND101] -- as published
        nn.BatchNorm2d(8),
        nn.ReLU(),
    )
    ```

    ## When to ignore
    When a comment is needed by another version of a library, or by other inputs than those of this run.

    ## References
    None.
    """

    code = "ND002"
    name = "unused-suppression"
    examples = True
    fixable = True

    def check_run(self, run: Run) -> Iterator[Finding]:
        """One finding for each comment with rules that silence nothing."""
        for comment in run.idle_comments():
            named = ", ".join(comment.idle)
            silences = "silences" if len(comment.idle) == 1 else "silence"
            remedy = f"Remove {named} from it" if comment.used else "Remove the comment"
            finding = self.about(
                f"{named} in this `{comment.verb}` comment {silences} nothing",
                location=comment.location,
                evidence={"unused": list(comment.idle), "used": list(comment.used)},
            )
            kept = ", ".join(comment.used)
            fix = Fix(title=remedy, applicability=Applicability.SAFE, steps=(Edit.comment(kept),))
            yield msgspec.structs.replace(finding, fix=fix)
