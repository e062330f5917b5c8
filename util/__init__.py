"""What every part of the program uses; importing it makes sure that the process has a user name."""

from util.runtime.user import ensure_user

ensure_user()  # before PyTorch, MONAI and Triton look for one
