"""What the entry points call. Takes clients, clock and deadline as arguments; knows nothing of Lambda or Pulumi."""
