"""The test bench: a DynamoDB that has a capacity, and what is measured against it."""
