"""What is in containers' roots: as archives, as differences, as layers."""
