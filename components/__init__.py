"""What is deployed: one ComponentResource a file. No AWS calls here; resources describe, Pulumi acts."""
