"""Temporary AWS credentials for people, CI jobs and admins."""

__version__ = "0.1.0"
