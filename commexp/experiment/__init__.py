"""What lies between a plan and a finished run folder."""
