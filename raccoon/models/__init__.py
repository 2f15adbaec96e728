"""Networks and classical methods: tensors and requests in, tensors and frames out. They know nothing of Lightning."""
