"""Plan x records -> tables, figures, report. Reads the store; never trains."""
