"""What a report shows beside its findings: plain data, computed from facts. No torch."""
