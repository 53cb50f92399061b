"""What methods find by running networks on unlabelled samples."""
