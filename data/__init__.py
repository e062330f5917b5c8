"""What happens once: raw downloads become prepared folders, pseudo-labels and indices."""
