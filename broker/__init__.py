"""The service: from a launch link to a running session, and to nothing left behind."""
