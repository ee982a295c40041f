"""The bench: how fast, how cheap, and how far it scales, against a DynamoDB that has a capacity."""
