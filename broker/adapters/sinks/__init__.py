"""Sinks: places outside that get every record of the log, at least once and in order."""
