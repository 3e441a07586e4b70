"""The `berth` command: flags in, requests out, text and exit codes back."""
