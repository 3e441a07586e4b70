"""What tests share: engines as processes, programs to run, and what they may leave behind."""
