"""Images, and the training of a supernet on them."""
