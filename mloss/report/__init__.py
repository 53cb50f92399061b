"""What a score says, for a person and for a machine."""

from mloss.report.drawings import write_heat_map
from mloss.report.layers import LayerRow, layer_rows
from mloss.report.nodes_file import write_nodes
from mloss.report.page import report_html, write_report
from mloss.report.record import as_json
from mloss.report.terminal import show
from mloss.report.verdict import Verdict, verdict
from mloss.report.worst_nodes import WorstNode, worst_nodes

__all__ = [
    "LayerRow",
    "Verdict",
    "WorstNode",
    "as_json",
    "layer_rows",
    "report_html",
    "show",
    "verdict",
    "worst_nodes",
    "write_heat_map",
    "write_nodes",
    "write_report",
]
