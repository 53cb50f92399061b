"""What of a task vector is kept: by size, by chance, by node, and by M-Loss."""
