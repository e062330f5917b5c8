"""Networks, losses, and the methods built of them."""
