"""What happens every step: which data sets exist, how their files are read, how samples are drawn from them."""
