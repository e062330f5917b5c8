"""Networks: encoders and heads. Import only torch (and its model zoos) and `util`."""
