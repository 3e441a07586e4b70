"""seccomp: from ``linux.seccomp`` of a runtime spec to the program that the kernel takes."""
