"""From an OCI runtime spec to a running process: zygote, monitor, init, exec, workers."""
