"""Reading the logs that monitors write."""
