"""Which experiments, and where they run: `studies.study.Study` says what, ``taghead-studies run`` does it."""
