"""Results for people: tables, plots, the page of a run. Needs no torch."""

# fmt: off
from nas.report.architecture_table import show_rows, show_table
from nas.report.comparison.tables import compare_tables
from nas.report.comparison.values import compare_rows, compare_runs
from nas.report.figures import draw_front, trust_figure
from nas.report.front_notes import front_notes
from nas.report.front_table import (
    export_command, front_csv, front_rows, front_table, nothing_fits, plain_table,
)
from nas.report.job_tables import (
    export_tables, finalists_table, forecast_table, predict_table, proposal_table, push_table,
    redundancy_table, retrain_table, training_rows, trust_table, validate_table,
)
from nas.report.latency_tables import measured_rows, measured_tables, profile_table, results_table
from nas.report.page.file import write_report
from nas.report.space_table import space_summary, space_table, spaces_table
from nas.report.status import run_rows, runs_table, status_dict, status_line, status_table
from nas.report.table import Column, Markup, Table, csv_text
from nas.report.terminal_plot import front_plots
from nas.report.verdict import best_plain, chance_level, chance_words, shape_words, verdict_of

__all__ = [
    "Column", "Markup", "Table", "best_plain", "chance_level", "chance_words", "compare_rows",
    "compare_runs", "compare_tables", "csv_text", "draw_front", "export_command", "export_tables",
    "finalists_table", "forecast_table", "front_csv", "front_notes", "front_plots", "front_rows",
    "front_table", "measured_rows", "measured_tables", "nothing_fits", "plain_table", "predict_table", "profile_table",
    "proposal_table", "push_table", "redundancy_table", "results_table", "retrain_table", "run_rows",
    "runs_table", "shape_words", "show_rows", "show_table", "space_summary", "space_table",
    "spaces_table", "status_dict", "status_line", "status_table", "training_rows", "trust_figure",
    "trust_table", "validate_table", "verdict_of", "write_report",
]
