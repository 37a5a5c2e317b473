"""Keys of the language that have no effect yet: read and analysed where a policy is looked at ahead."""
