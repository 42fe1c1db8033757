"""normdoctor in training frameworks, and where the figures of a watch can go.

Frameworks are imported when they are used: `normdoctor.integrations.lightning` and
`normdoctor.integrations.transformers` hold a `NormDoctorCallback` each; the sinks for `normdoctor.watch(...,
sink=...)` are here.
"""

from normdoctor.integrations.extras import MissingExtraError
from normdoctor.integrations.sinks import JsonLines, MetricSink, MLflow, TensorBoard, WandB

__all__ = ["JsonLines", "MLflow", "MetricSink", "MissingExtraError", "TensorBoard", "WandB"]
