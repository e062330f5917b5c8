"""What is imaged: analytic shapes, and the bodies built of them."""
