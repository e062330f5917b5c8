"""Raw on-disk layouts, one module per data set."""
