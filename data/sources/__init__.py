"""How the raw files of each data set are found and read, one module per data set."""
