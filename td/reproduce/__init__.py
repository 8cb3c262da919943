"""The tables and figures of the paper: which runs, their results, the reports."""
