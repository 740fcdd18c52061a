"""The report: lane and accelerator area, timing, throughput, on one page."""
