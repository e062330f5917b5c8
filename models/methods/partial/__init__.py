"""Learning several tasks from data sets each of which is annotated for some of them."""
