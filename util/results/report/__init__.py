"""Report pages: a run, or a comparison of runs, as one HTML file that opens offline, and prints well.

frugalseg report RUN            # writes report.html into the run's folder
frugalseg report RUN RUN ...    # a comparison, case by case; comparison.html
"""

from util.results.report.page import save_report
from util.results.report.record import Record

__all__ = ["Record", "save_report"]
